"""U-Net models from state dicts of ELEPHANT's `UNet.three_class_segmentation`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cellsparse_common.channels import MAX_CHANNELS
from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_torch.files import find_state, load_checked, read_state
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.models.outline_refinement import read_level, without_level
from cellsparse_unet.config import Config, resolve
from cellsparse_unet.instances import Thresholds
from cellsparse_unet.model import UnetModel
from cellsparse_unet.network import WEIGHTS_FILE, empty_network

STOCK_PERCENTILES = (0.0, 100.0)
"""ELEPHANT scales the smallest value to 0 and the largest to 1."""
_NAME = "U-Net of ELEPHANT's"
_FIRST = "encoder.0.0.weight"


def import_model(
    source: Path, target: Path, settings: trainer_pb2.ImportSettings, record: Mapping[str, Any] | None
) -> None:
    """Check a state dict and write it as `UnetModel.export` would.

    Args:
        source: The file, or the unpacked folder of an export.
        target: An empty folder.
        settings: Not used; a U-Net needs no more than its file.
        record: `config.json` of an export; None: thresholds are the defaults of this trainer.

    Raises:
        InvalidArgument: The file is no such state dict.
        ValueError: A setting is out of range.
    """
    state = read_state(find_state(source, WEIGHTS_FILE), _NAME, in_list=True)
    base, inputs = _base_channels(state)
    thresholds: Thresholds | None = None
    if record is None:
        if state[_FIRST].ndim == 5:
            raise InvalidArgument(
                "The U-Net is for stacks (3D); of those, only this system's own exports say how far apart planes are.",
                "file",
            )
        stock = trainer_pb2.TrainingSettings(
            unet=trainer_pb2.UnetSettings(),
            precision=trainer_pb2.PRECISION_FLOAT32,  # so that it predicts as the stock tool does
        )
        plain = resolve(stock, 1)
        plan = dataclasses.replace(plain.plan, channels=tuple(range(inputs)) if inputs > 1 else ())
        config, level = dataclasses.replace(plain, base_channels=base, plan=plan, refine_outlines=False), None
    else:
        stored = ModelConfig.from_dict(record)
        config, thresholds = Config.from_dict(stored.config), Thresholds(**without_level(stored.fitted))
        level = read_level(stored.fitted)
        if config.base_channels != base:
            raise InvalidArgument(f"The file has {base} base channels; its record says {config.base_channels}.", "file")
    network = empty_network(config)
    load_checked(network, state, _NAME)
    UnetModel(network, config, thresholds, outline_level=level).export(target)


def _base_channels(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the channels of the first level, and those of the images.

    Raises:
        InvalidArgument: There is no first level, or it has too few or too many.
    """
    if _FIRST not in state:
        raise InvalidArgument(f"The file is no U-Net of ELEPHANT's: {_FIRST} is missing.", "file")
    shape = state[_FIRST].shape
    if not shape or not 4 <= shape[0] <= 128:
        raise InvalidArgument(f"The U-Net's {_FIRST} has shape {tuple(shape)}; allowed: 4 to 128 channels.", "file")
    if len(shape) < 2 or not 1 <= shape[1] <= MAX_CHANNELS:
        raise InvalidArgument(
            f"The U-Net's {_FIRST} has shape {tuple(shape)}; allowed: 1 to {MAX_CHANNELS} image channels.", "file"
        )
    return int(shape[0]), int(shape[1])
