"""The StarDist backend: what `cellsparse_trainer` calls, in child processes only."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellsparse_common.errors import InvalidArgument
from cellsparse_stardist.config import Config, resolve
from cellsparse_stardist.data import Sampler
from cellsparse_stardist.data_parallel import Together, own_gpu
from cellsparse_stardist.export import EXPORTS
from cellsparse_stardist.framework import devices, tf, use_device, versions
from cellsparse_stardist.importing import STOCK_PERCENTILES, import_model
from cellsparse_stardist.initial_model import adopt
from cellsparse_stardist.model import StardistModel, build, open_stock
from cellsparse_stardist.step import Step
from cellsparse_trainer.data.prefetch import Batches
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import ALONE, Ranks

__all__ = [
    "EXPORTS",
    "NAME",
    "STOCK_PERCENTILES",
    "StardistTraining",
    "adopt",
    "create",
    "devices",
    "import_model",
    "open_model",
    "resolve",
    "versions",
]

NAME = "stardist"
STATE_FILE = "state.npz"
PROBES = 4
"""Batches measured for the mean ray length that the network starts from."""


class StardistTraining:
    """A StarDist training in progress."""

    def __init__(self, sampler: Sampler, start: Path | None = None, together: Together | None = None) -> None:
        self.batches: Batches = sampler
        config = sampler.config
        ray = _mean_ray(sampler, config.plan.steps) if config.dist_start and start is None else 0.0
        stock = build(config, ray)
        if start is not None:
            given = open_stock(start).stock
            stock.keras_model.set_weights(given.keras_model.get_weights())
            stock.thresholds = given.thresholds._asdict()
        self._step = Step(stock.keras_model, config, together)
        self._model = StardistModel(config, stock)

    def train_step(self, step: int) -> dict[str, float]:
        """Do step number `step` (from 0); returns "loss", "prob" and "dist".

        Raises:
            FloatingPointError: The loss is not finite.
        """
        return self._step(self.batches.batch(step), step)

    def save(self, folder: Path) -> None:
        """Write weights and optimizer moments, all arrays in one file."""
        np.savez(folder / STATE_FILE, **self._step.state())  # type: ignore[arg-type]

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            ValueError: It belongs to a network of another shape.
        """
        with np.load(folder / STATE_FILE, allow_pickle=False) as state:
            self._step.set_state(dict(state))

    def model(self) -> StardistModel:
        """Return the model that is being trained; it shares the weights."""
        return self._model


def create(
    config: Config, train: Sequence[Sample], device: str, start: Path | None = None, ranks: Ranks = ALONE
) -> StardistTraining:
    """Build network, optimizer and sampler; with weights and thresholds of a model's folder, if one is given.

    Raises:
        InvalidArgument: No cell is labelled, or the device is missing.
    """
    if use_device(device) == "cpu":
        # Not on a GPU: there some operations of the network have no deterministic form and would fail.
        tf.config.experimental.enable_op_determinism()
    together = None
    if not ranks.alone:
        own_gpu(ranks)
        together = Together(config.plan.gradient_format)
    tf.random.set_seed(config.plan.seed % 2**31)  # determinism demands one; the weights come from `build`
    sampler = Sampler(train, config, ranks)
    if sampler.cells == 0:
        raise InvalidArgument(f"None of the {len(train)} training images has a labelled cell; label at least one.")
    return StardistTraining(sampler, start, together)


def open_model(folder: Path, device: str) -> StardistModel:
    """Open what `StardistModel.export` wrote.

    Raises:
        InvalidArgument: The device is missing.
        FileNotFoundError: A file is missing.
    """
    use_device(device)
    return open_stock(folder)


def _mean_ray(sampler: Sampler, first_step: int) -> float:
    """Return the mean ray length in pixels in batches that no step draws."""
    every = range(sampler.config.plan.crops_per_step)  # so that all ranks find the same
    batches = [sampler.part(first_step + i, every) for i in range(PROBES)]
    rays = np.concatenate([batch.dist[batch.prob[..., 0] > 0] for batch in batches])
    return float(rays.mean()) if rays.size else 0.0
