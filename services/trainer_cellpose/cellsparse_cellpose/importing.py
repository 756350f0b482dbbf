"""Cellpose models from files of the stock tool."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellsparse_cellpose.config import Config, resolve
from cellsparse_cellpose.model import CellposeModel
from cellsparse_cellpose.network import WEIGHTS_FILE, build_network
from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_torch.files import find_state, load_checked, read_state
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.models.outline_refinement import read_level

STOCK_PERCENTILES = (1.0, 99.0)
"""What `CellposeModel.eval` makes 0 and 1."""
_NAME = "Cellpose 3 model"
_LEVEL = "downsample.down.res_down_{}.proj.1.weight"
_MOST_LEVELS, _MOST_CHANNELS = 8, 1024
_DIAMETERS = ("diam_mean", "diam_labels")
_STOCK_DIAMETER = 30.0


def import_model(
    source: Path, target: Path, settings: trainer_pb2.ImportSettings, record: Mapping[str, Any] | None
) -> None:
    """Check a Cellpose 3 model file and write it as `CellposeModel.export` would.

    Args:
        source: The file, or the unpacked folder of an export.
        target: An empty folder.
        settings: `cellpose.diameter` replaces the file's; with two `channels`, the second one shows nuclei.
        record: `config.json` of an export; None: settings are the stock tool's.

    Raises:
        InvalidArgument: The file is no Cellpose 3 model.
        ValueError: A diameter or a setting is out of range.
    """
    state = read_state(find_state(source, WEIGHTS_FILE), _NAME)
    _refuse_newer(state)
    channels = _channels(state)
    mean, labels = (float(state[name]) if name in state else _STOCK_DIAMETER for name in _DIAMETERS)
    if record is None:
        plain = trainer_pb2.TrainingSettings(
            cellpose=trainer_pb2.CellposeSettings(),
            precision=trainer_pb2.PRECISION_FLOAT32,  # so that it predicts as the stock tool does
        )
        base = resolve(plain, 1)
        # The stock tool takes all cells to have the diameter that it is given.
        plan = dataclasses.replace(base.plan, channels=_image_channels(settings))
        config = dataclasses.replace(base, plan=plan, channels=channels, mean_diameter=mean, size_passes=0)
        config, level = dataclasses.replace(config, refine_outlines=False), None
    else:
        stored = ModelConfig.from_dict(record)
        config, labels = Config.from_dict(stored.config), float(stored.fitted["diameter"])
        level = read_level(stored.fitted)
        if settings.channels:
            plan = dataclasses.replace(config.plan, channels=_image_channels(settings))
            config = dataclasses.replace(config, plan=plan)
        if config.channels != channels:
            raise InvalidArgument(f"The file has {channels} channels; its record says {config.channels}.", "file")
    diameter = settings.cellpose.diameter if settings.cellpose.HasField("diameter") else labels
    if not 0 < diameter < float("inf"):
        raise InvalidArgument(f"The file says that cells have a diameter of {diameter} pixels; give it.", "settings")
    network = build_network(config)
    # Models of Cellpose 1 lack the diameters, and the stock tool takes its default for them.
    state = {name: torch.tensor([_STOCK_DIAMETER]) for name in _DIAMETERS} | state
    load_checked(network, state, _NAME)
    network.diam_mean.data.fill_(config.mean_diameter)
    network.diam_labels.data.fill_(diameter)
    CellposeModel(network, config, diameter, outline_level=level).export(target)


def _image_channels(settings: trainer_pb2.ImportSettings) -> tuple[int, ...]:
    """Return the image channels of cytoplasm and nucleus; empty for one grey channel."""
    return tuple(settings.channels) if len(settings.channels) > 1 else ()


def _refuse_newer(state: Mapping[str, Tensor]) -> None:
    if "W2" in state or any(name.startswith("encoder.") for name in state):
        raise InvalidArgument(
            "The file is a Cellpose-SAM model: import it with backend cellpose_sam. Allowed: Cellpose 1 to 3.",
            "file",
        )


def _channels(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the feature channels per level."""
    found: list[int] = []
    while _LEVEL.format(len(found)) in state and len(found) < _MOST_LEVELS:
        found.append(int(state[_LEVEL.format(len(found))].shape[0]))
    if not found:
        raise InvalidArgument(f"The file is no Cellpose 3 model: {_LEVEL.format(0)} is missing.", "file")
    if max(found) > _MOST_CHANNELS:
        raise InvalidArgument(f"The network has {max(found)} channels in a level; allowed: {_MOST_CHANNELS}.", "file")
    return tuple(found)
