"""U-Net models from state dicts of ELEPHANT's `UNet.three_class_segmentation`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.models.shapes import check_shapes
from cellsparse_unet.config import Config, resolve
from cellsparse_unet.instances import Cut
from cellsparse_unet.model import UNet
from cellsparse_unet.predictor import WEIGHTS, Predictor

STOCK_PERCENTILES = (0.0, 100.0)
"""ELEPHANT scales the smallest value to 0 and the largest to 1."""
_FIRST = "encoder.0.0.weight"


def import_model(
    source: Path, target: Path, settings: trainer_pb2.ImportSettings, record: Mapping[str, Any] | None
) -> None:
    """Check a state dict and write it as `Predictor.export` would.

    Args:
        source: The file, or the unpacked folder of an export.
        target: An empty folder.
        settings: Not used; a U-Net needs no more than its file.
        record: `config.json` of an export; None: thresholds are the defaults of this trainer.

    Raises:
        InvalidArgument: The file is no such state dict.
        ValueError: A setting is out of range.
    """
    state = _read(_file(source))
    base = _base_channels(state)
    cut: Cut | None = None
    if record is None:
        if state[_FIRST].ndim == 5:
            raise InvalidArgument(
                "The U-Net is for stacks (3D); of those, only this system's own exports say how far apart planes are.",
                "file",
            )
        plain = resolve(trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings()), 1)
        config = dataclasses.replace(plain, base_channels=base)
    else:
        config, cut = Config.from_json(json.dumps(record["config"])), Cut(**record["cut"])
        if config.base_channels != base:
            raise InvalidArgument(f"The file has {base} base channels; its record says {config.base_channels}.", "file")
    net = UNet(base_channels=base, dims=config.dims, flat_levels=config.flat_levels)
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    check_shapes(expected, {name: tuple(value.shape) for name, value in state.items()}, "U-Net of ELEPHANT's")
    net.load_state_dict(state)
    if not all(bool(torch.isfinite(value).all()) for value in net.state_dict().values()):
        raise InvalidArgument("The file holds weights that are not finite.", "file")
    Predictor(net, config, cut).export(target)


def _file(source: Path) -> Path:
    if source.is_file():
        return source
    found = sorted(source.rglob(WEIGHTS))
    if not found:
        raise InvalidArgument(f"The zip holds no file {WEIGHTS}; send the state dict's file itself.", "file")
    return found[0]


def _read(path: Path) -> dict[str, Tensor]:
    """Return a state dict, which ELEPHANT also keeps as a list of one; nothing but arrays is ever unpickled."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes PyTorch raise
        raise InvalidArgument(
            "The file is no PyTorch file of weights alone: it is damaged, of another kind, or holds objects or code, "
            "which are never loaded.",
            "file",
        ) from error
    if isinstance(state, list):
        if len(state) != 1:
            raise InvalidArgument(f"The file holds an ensemble of {len(state)} networks; allowed: one.", "file")
        state = state[0]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidArgument("The file is no U-Net of ELEPHANT's: it holds no state dict of named arrays.", "file")
    return {str(name): value for name, value in state.items()}


def _base_channels(state: Mapping[str, Tensor]) -> int:
    """Return the channels of the first level.

    Raises:
        InvalidArgument: There is no first level, or it has too few or too many.
    """
    if _FIRST not in state:
        raise InvalidArgument(f"The file is no U-Net of ELEPHANT's: {_FIRST} is missing.", "file")
    shape = state[_FIRST].shape
    if not shape or not 4 <= shape[0] <= 128:
        raise InvalidArgument(f"The U-Net's {_FIRST} has shape {tuple(shape)}; allowed: 4 to 128 channels.", "file")
    return int(shape[0])
