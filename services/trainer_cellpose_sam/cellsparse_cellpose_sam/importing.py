"""Cellpose-SAM models from files of the stock tool."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellsparse_cellpose_sam.config import Config, resolve
from cellsparse_cellpose_sam.model import CellposeSamModel
from cellsparse_cellpose_sam.network import OUTPUTS, PATCH, STOCK_DIAMETER, WEIGHTS_FILE, empty_network
from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_torch.files import find_state, load_checked, read_state
from cellsparse_trainer.config.backend_config import ModelConfig

STOCK_PERCENTILES = (1.0, 99.0)
"""What `CellposeModel.eval` makes 0 and 1."""
_NAME = "Cellpose-SAM model"
_PARALLEL = "module."
"""What training on several GPUs puts before all names."""
_DIAMETERS = ("diam_mean", "diam_labels")
_POSITIONS = "encoder.blocks.{}.attn.rel_pos_h"
_MOST_BLOCKS = 32


def import_model(
    source: Path, target: Path, settings: trainer_pb2.ImportSettings, record: Mapping[str, Any] | None
) -> None:
    """Check a Cellpose-SAM model file and write it as `CellposeSamModel.export` would.

    Args:
        source: The file, or the unpacked folder of an export.
        target: An empty folder.
        settings: Nothing of them is this backend's own.
        record: `config.json` of an export; None: settings are the stock tool's.

    Raises:
        InvalidArgument: The file is no Cellpose-SAM model.
        ValueError: A setting is out of range.
    """
    state = read_state(find_state(source, WEIGHTS_FILE), _NAME)
    state = {name.removeprefix(_PARALLEL): value.float() for name, value in state.items()}
    _refuse_others(state)
    depth, width, heads = _encoder(state)
    if record is None:
        base, diameter = resolve(trainer_pb2.TrainingSettings(cellpose_sam={}), 1), STOCK_DIAMETER
        config = dataclasses.replace(base, encoder_depth=depth, encoder_width=width, encoder_heads=heads)
    else:
        stored = ModelConfig.from_dict(record)
        config, diameter = Config.from_dict(stored.config), float(stored.fitted["diameter"])
        if config.encoder != (depth, width, heads):
            raise InvalidArgument(
                f"The file's encoder has depth, width and heads {(depth, width, heads)}; its record says "
                f"{config.encoder}.",
                "file",
            )
    network = empty_network(config.encoder)
    # Files of other tools may lack the diameters, which stock Cellpose keeps and does not use.
    state = {name: torch.tensor([STOCK_DIAMETER]) for name in _DIAMETERS} | state
    load_checked(network, state, _NAME, assign=True)
    CellposeSamModel(network, config, diameter).export(target)


def _refuse_others(state: Mapping[str, Tensor]) -> None:
    if "encoder.cls_token" in state:
        raise InvalidArgument("The file is a Cellpose-DINO model; allowed: Cellpose-SAM models (cpsam).", "file")
    if any(name.startswith("downsample.") for name in state):
        raise InvalidArgument(
            "The file is a model of Cellpose 1 to 3; import it with backend cellpose. Allowed: Cellpose-SAM models.",
            "file",
        )
    outputs = len(state["out.bias"]) // PATCH**2 if "out.bias" in state else OUTPUTS
    if outputs != OUTPUTS:
        raise InvalidArgument(
            f"The network has {outputs} outputs, so it also classifies; allowed: {OUTPUTS}, flows and cells.", "file"
        )


def _encoder(state: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Return depth, width and heads of a state dict's encoder."""
    depth = 0
    while _POSITIONS.format(depth) in state and depth < _MOST_BLOCKS:
        depth += 1
    positions, embedding = state.get(_POSITIONS.format(0)), state.get("encoder.pos_embed")
    if positions is None or embedding is None or positions.ndim != 2 or embedding.ndim != 4 or not positions.shape[1]:
        raise InvalidArgument(f"The file is no {_NAME}: it lacks a vision transformer's weights.", "file")
    width = int(embedding.shape[3])
    return depth, width, width // int(positions.shape[1])
