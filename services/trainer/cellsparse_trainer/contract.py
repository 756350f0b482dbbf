"""What a framework brings: the seam between `cellsparse_trainer` and the three backend packages.

A backend package has a module `backend` that offers the functions of `Backend`; the worker process imports it by name.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.data.prefetch import Batches
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import ALONE, Ranks

Labels = npt.NDArray[np.int32]
"""Label image, axes YX or ZYX: -1 not labelled (true labels only), 0 background, n > 0 cell n."""

CONFIG_FILE = "config.json"
"""What `Model.export` calls the file with its settings, a JSON object."""

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
        """Segment a normalised image (float32, values 0 to 1) of any size; cells are numbered 1 to n.

        The image has the axes that the model was trained on, YX or ZYX; so have the labels.
        """

    def tune(self, samples: Sequence[Sample]) -> None:
        """Choose the thresholds that do best on these labelled pixels; may do nothing."""

    def export(self, folder: Path) -> None:
        """Write the model in the stock tool's own format, and `config.json`, into an empty folder."""


@runtime_checkable
class StackModel(Protocol):
    """A network for 2D images that segments stacks, too, plane by plane."""

    def predict_stack(self, image: npt.NDArray[np.float32]) -> Labels:
        """Segment a normalised stack (float32, values 0 to 1, axes ZYX); cells are numbered 1 to n over all planes."""


class Training(Protocol):
    """A training in progress."""

    batches: Batches
    """Where `train_step` takes its batches from: at first a sampler that can be pickled."""

    def train_step(self, step: int) -> dict[str, float]:
        """Do one optimizer step on batch number `step` (from 0) and return the losses; "loss" is what is minimised.

        The batch is a pure function of the seed and `step`, so that a resumed training draws what it would have drawn.

        Raises:
            FloatingPointError: The loss or its gradient is not finite (see `failures.not_finite`).
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

    def resolve(self, settings: trainer_pb2.TrainingSettings, items: int, stacks: bool = False) -> Any:
        """Return the `Config` of a preset and given settings for a number of training items.

        With `stacks` the items have axes ZYX. The config's plan then has a `crop_depth`, or None where the backend
        trains on single planes: it is given these as samples of axes YX, and asked again with their number.

        Raises:
            ValueError: A combination of settings is not allowed.
        """

    def adopt(self, config: Any, settings: trainer_pb2.TrainingSettings, text: str) -> Any:
        """Return the `Config` with the network of a model that training starts from.

        Args:
            config: What `resolve` made.
            settings: What it was made of; what they give and the model cannot have is refused.
            text: The model's `CONFIG_FILE`.

        Raises:
            ValueError: A setting contradicts the model.
        """

    def create(
        self, config: Any, train: Sequence[Sample], device: str, start: Path | None = None, ranks: Ranks = ALONE
    ) -> Training:
        """Build network, optimizer and sampler.

        Args:
            config: All settings, fitted to the start by `adopt`.
            train: Training items.
            device: "auto", "cpu" or "cuda".
            start: Folder that `Model.export` wrote, whose weights and thresholds to begin with; None: fresh weights.
            ranks: This process' place among those that train one model together: they take equal steps with the loss
                and the gradient of all their crops together, so that their weights stay equal.

        Raises:
            InvalidArgument: The data cannot be trained on, or the device is missing.
        """

    def open_model(self, folder: Path, device: str) -> Model:
        """Open what `Model.export` wrote."""

    STOCK_PERCENTILES: tuple[float, float]
    """Percentiles of the image that the stock tool makes 0 and 1 unless told otherwise."""

    def import_model(
        self, source: Path, target: Path, settings: trainer_pb2.ImportSettings, record: Mapping[str, Any] | None
    ) -> None:
        """Check a model of the stock tool and write it as `Model.export` would.

        Args:
            source: A file, or the folder of an unpacked zip; nothing in it is trusted.
            target: An empty folder.
            settings: What the person said of it.
            record: The `CONFIG_FILE` that our own export put beside it; None: it has none.

        Raises:
            InvalidArgument: It is no model of this backend, or one that cannot be used here; says why.
            ValueError: A value in its files is outside its range.
            RuntimeError: A file cannot be read.
        """
