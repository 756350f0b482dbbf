"""Cellpose models as files for other tools."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellsparse_cellpose.model import CONFIG_FILE, MODEL_FILE
from cellsparse_trainer.backend import Exporter

_README = """# A Cellpose model

Opens in stock Cellpose 3, here with the normalisation and the thresholds that it was trained and scored with:

    from cellpose.models import CellposeModel

    model = CellposeModel(pretrained_model="{file}")
    masks, flows, styles = model.eval(
        image,
        channels=[0, 0],
        diameter={diameter:.6g},
        normalize={{"percentile": [{lower:g}, {upper:g}]}},
        flow_threshold={flow:g},
        cellprob_threshold={cellprob:g},
        min_size={min_size},
    )
"""


def native(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the file that `CellposeModel(pretrained_model=...)` opens, and how."""
    record = json.loads((source / CONFIG_FILE).read_text())
    how, config = card["preprocessing"], record["config"]
    text = _README.format(
        file=MODEL_FILE,
        diameter=record["diameter"],
        lower=how["lower_percentile"],
        upper=how["upper_percentile"],
        flow=config["flow_threshold"],
        cellprob=config["cellprob_threshold"],
        min_size=config["min_size"],
    )
    shutil.copyfile(source / MODEL_FILE, target / MODEL_FILE)
    (target / "README.md").write_text(text)


EXPORTS: dict[str, Exporter] = {"native": native}
