"""StarDist models as files for other tools."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellsparse_stardist.model import FOLDER
from cellsparse_trainer.backend import Exporter

_README = """# A StarDist model

Opens in stock StarDist with its thresholds, here from this file's folder:

    from csbdeep.utils import normalize
    from stardist.models import StarDist2D

    model = StarDist2D(None, name="{name}", basedir=".")
    labels, details = model.predict_instances(normalize(image, {lower:g}, {upper:g}, clip=True))
"""


def native(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the folder that `StarDist2D(None, name="stardist", basedir=...)` opens, and how."""
    how = card["preprocessing"]
    shutil.copytree(source / FOLDER, target / FOLDER)
    text = _README.format(name=FOLDER, lower=how["lower_percentile"], upper=how["upper_percentile"])
    (target / "README.md").write_text(text)


EXPORTS: dict[str, Exporter] = {"native": native}
