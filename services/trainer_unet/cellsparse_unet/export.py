"""U-Net models as files for other tools."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellsparse_trainer.backend import Exporter
from cellsparse_unet.predictor import WEIGHTS, open_network

ELEPHANT_CHANNELS = 16
"""Base channels of ELEPHANT's network."""
_README = """# A U-Net after ELEPHANT

`{file}` is the state dict of ELEPHANT's `UNet.three_class_segmentation` for 2D images{width}:

    import torch

    state = torch.load("{file}", weights_only=True)
    network = UNet.three_class_segmentation(is_eval=True, state_dict=state, is_3d=False)

Input: one channel, percentiles {lower:g} and {upper:g} of the image scaled to 0 and 1 and values beyond them clipped,
height and width multiples of 16. Output: log-probabilities of background, outer and centre.
"""


def native(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the state dict that ELEPHANT's `UNet.three_class_segmentation` takes, and how."""
    base = open_network(source)[1].base_channels
    how = card["preprocessing"]
    text = _README.format(
        file=WEIGHTS,
        width=""
        if base == ELEPHANT_CHANNELS
        else f",\nbut with {base} in place of its {ELEPHANT_CHANNELS} base channels",
        lower=how["lower_percentile"],
        upper=how["upper_percentile"],
    )
    shutil.copyfile(source / WEIGHTS, target / WEIGHTS)
    (target / "README.md").write_text(text)


EXPORTS: dict[str, Exporter] = {"native": native}
