"""What a framework brings: the seam between `cellsparse_trainer` and the three backend packages.

A backend package has a module `backend` that offers the functions of `Backend`; the worker process imports it by name.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.plan import Plan
from cellsparse_trainer.samples import Sample

Labels = npt.NDArray[np.int32]
"""Label image, axes YX: -1 not labelled (true labels only), 0 background, n > 0 cell n."""

Exporter = Callable[[Path, Path, Mapping[str, Any]], None]
"""Writes a model for other tools: from the folder that `Model.export` wrote, into an empty folder, given its card."""


class Config(Protocol):
    """A backend's resolved settings."""

    @property
    def plan(self) -> Plan:
        """The part that every backend shares."""

    def to_json(self) -> str:
        """Return all settings as a JSON object."""


class Model(Protocol):
    """A network that segments."""

    def predict(self, image: npt.NDArray[np.float32]) -> Labels:
        """Segment a normalised image (float32, axes YX, values 0 to 1) of any size; cells are numbered 1 to n."""

    def tune(self, samples: Sequence[Sample]) -> None:
        """Choose the thresholds that do best on these labelled pixels; may do nothing."""

    def export(self, folder: Path) -> None:
        """Write the model in the stock tool's own format, and `config.json`, into an empty folder."""


class Training(Protocol):
    """A training in progress."""

    def train_step(self, step: int) -> dict[str, float]:
        """Do one optimizer step on batch number `step` (from 0) and return the losses; "loss" is what is minimised.

        The batch is a pure function of the seed and `step`, so that a resumed training draws what it would have drawn.

        Raises:
            FloatingPointError: The loss is not finite.
        """

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state into an empty folder."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""

    def model(self) -> Model:
        """Return the current weights as a model, for validation and export; it may share them."""


class Backend(Protocol):
    """The functions of a backend module."""

    NAME: str
    EXPORTS: Mapping[str, Exporter]
    """What files a model can be written as: exporters by short name, such as "native" (see `ExportFormat`)."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that matter, by name."""

    def devices(self) -> list[str]:
        """Return the devices found, such as "cpu" or "cuda:0 NVIDIA A100"."""

    def resolve(self, settings: trainer_pb2.TrainingSettings, items: int) -> Any:
        """Return the `Config` of a preset and given settings for a number of training items.

        Raises:
            ValueError: A combination of settings is not allowed.
        """

    def create(self, config: Any, train: Sequence[Sample], device: str) -> Training:
        """Build network, optimizer and sampler.

        Raises:
            InvalidArgument: The data cannot be trained on, or the device is missing.
        """

    def open_model(self, folder: Path, device: str) -> Model:
        """Open what `Model.export` wrote."""
