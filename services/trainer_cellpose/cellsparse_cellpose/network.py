"""Cellpose's network: built with fresh weights, or read from a model's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from cellpose.resnet_torch import CPnet
from torch import Tensor

from cellsparse_cellpose.config import Config
from cellsparse_cellpose.training_network import TrainedNetwork
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.contract import CONFIG_FILE
from cellsparse_trainer.models.outline_refinement import OutlineLevel, read_level

WEIGHTS_FILE = "cellpose_model"
"""The file that stock Cellpose opens (`pretrained_model=`)."""


class Stored(NamedTuple):
    """What a model's folder holds."""

    network: CPnet
    """On the CPU."""
    config: Config
    diameter: float
    """Mean diameter in pixels of the cells that the network was trained on."""
    outline_level: OutlineLevel | None
    """At which outlines are refined (see `outline_refinement`); None: they are not."""


def build_network(config: Config) -> CPnet:
    """Return Cellpose's network with fresh weights that depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.plan.seed)
        network = TrainedNetwork([2, *config.channels], 3, sz=3, mkldnn=False, diam_mean=config.mean_diameter)
    return network.to(memory_format=torch.channels_last)


def read_model(folder: Path, weights: Mapping[str, Tensor] | None = None) -> Stored:
    """Read what `CellposeModel.export` wrote.

    Args:
        folder: Holds `config.json`, and `cellpose_model` unless weights are given.
        weights: The state dict to take instead.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The files do not belong together.
    """
    stored = ModelConfig.from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    config = Config.from_dict(stored.config)
    network = build_network(config)
    if weights is None:
        weights = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return Stored(network, config, float(stored.fitted["diameter"]), read_level(stored.fitted))
