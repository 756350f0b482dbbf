"""What a backend brings: the seam between `cellsparse_trainer` and the packages that train one kind of model.

A backend is a package that exports one `BackendSpec` as `BACKEND`, and names itself in the entry-point group
`GROUP`. It has two parts:

- `LightBackend` turns settings into a configuration. The server uses it, so it loads no framework.
- `Backend` trains, predicts, exports and imports. Only child processes load it, because it loads the framework.

`docs/adding-a-backend.md` walks through a new one.
"""

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.scores import Segmentation
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.budget import DataSummary
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.data.prefetch import Batches
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import ALONE, Ranks
from cellsparse_trainer.processes.launch import NodeCommand

GROUP = "cellsparse.trainers"
"""Entry-point group: names are those of the backends, values are "package:BACKEND"."""

Labels = npt.NDArray[np.int32]
"""Label image, axes YX or ZYX: -1 not labelled (true labels only), 0 background, n > 0 cell n."""

CONFIG_FILE = "config.json"
"""File in which `Model.export` writes the model's settings, a JSON object."""

CHECKPOINT_CARD = "card.json"
"""File of a checkpoint, beside what `Training.save` wrote, that says how to feed its network; a JSON object."""

Exporter = Callable[[Path, Path, Mapping[str, Any]], None]
"""Writes a model for other tools: from the folder that `Model.export` wrote, into an empty folder, given its card."""


class Config(Protocol):
    """A backend's resolved settings, a frozen dataclass (see `BackendConfig`)."""

    TOOL: ClassVar[str]
    MOST_CHANNELS: ClassVar[int]
    FIXED_CHANNELS: ClassVar[bool]

    @property
    def plan(self) -> Plan:
        """The part that every backend shares."""

    def to_json(self) -> str:
        """Return all settings as a JSON object."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: A setting is missing, unknown or outside its range.
        """


C = TypeVar("C", bound=Config)
C_contra = TypeVar("C_contra", bound=Config, contravariant=True)


def with_plan(config: C, plan: Plan) -> C:
    """Return a configuration with another plan."""
    return replace(config, plan=plan)  # type: ignore[type-var] # a protocol cannot require a dataclass


class LightBackend(Protocol[C]):
    """The part of a backend that loads no framework: its settings."""

    @property
    def Config(self) -> type[C]:  # noqa: N802 - it is a class
        """The class of the resolved settings."""

    def resolve(self, settings: trainer_pb2.TrainingSettings, items: int, stacks: bool = False) -> C:
        """Return the configuration of a preset and given settings for a number of training items.

        With `stacks` the items have axes ZYX. The config's plan then has a `crop_depth`, or None where the backend
        trains on single planes: it gets these as samples of axes YX, and `items` is their number.

        Raises:
            ValueError: A combination of settings is not allowed.
        """

    def adopt(self, config: C, settings: trainer_pb2.TrainingSettings, text: str) -> C:
        """Return the configuration with the network of the model that training starts from.

        Args:
            config: The result of `resolve`.
            settings: What `config` was resolved from. A setting that is given and contradicts the model is refused.
            text: The model's `CONFIG_FILE`.

        Raises:
            ValueError: A setting contradicts the model, or the text is no configuration.
        """


@runtime_checkable
class GrowingBackend(Protocol[C]):
    """A light part whose crops or network, too, depend on how many and how varied the labelled cells are."""

    def grow(self, config: C, settings: trainer_pb2.TrainingSettings, data: DataSummary) -> C:
        """Return the configuration with the crops and the network that the data ask for.

        Args:
            config: The result of `resolve`, its steps fitted to the data.
            settings: What it was resolved from: what is given there stays.
            data: The training items; `budget.growth` says how much they are.
        """


class Model(Protocol):
    """A network that segments."""

    def predict(self, image: npt.NDArray[np.float32]) -> Labels:
        """Segment a normalised image (float32, values 0 to 1) of any size; cells are numbered 1 to n.

        The image has the axes that the model was trained on, YX or ZYX, and channels last where the model takes several
        (see `Plan.channels`); labels have the same axes without channels.
        """

    def segment(self, image: npt.NDArray[np.float32]) -> Segmentation:
        """Return the cells that `predict` finds, and how sure the model is of each, 0 to 1."""

    def tune(self, samples: Sequence[Sample]) -> None:
        """Choose the thresholds that do best on these labelled pixels; may do nothing."""

    def export(self, folder: Path) -> None:
        """Write the model in the stock tool's own format, and `config.json`, into an empty folder."""


@runtime_checkable
class OutlineModel(Protocol):
    """A network that can refine the outlines of the cells it finds (see `models.outline_refinement`)."""

    def fit_outlines(self, samples: Sequence[Sample]) -> None:
        """Fit, after `tune`, how outlines are refined to these labelled cells; may do nothing."""


@runtime_checkable
class StackModel(Protocol):
    """A network for 2D images that segments stacks, too, plane by plane."""

    def segment_stack(self, image: npt.NDArray[np.float32]) -> Segmentation:
        """Segment a normalised stack; cells are numbered 1 to n over all planes.

        It is float32, values 0 to 1, axes ZYX, with several channels ZYXC.
        """


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


class Backend(Protocol[C_contra]):
    """The part of a backend that loads its framework: the functions of a module."""

    @property
    def EXPORTS(self) -> Mapping[str, Exporter]:  # noqa: N802 - a constant
        """What files a model can be written as: exporters by short name, such as "native" (see `ExportFormat`)."""

    @property
    def STOCK_PERCENTILES(self) -> tuple[float, float]:  # noqa: N802 - a constant
        """Percentiles of the image that the stock tool maps to 0 and 1 by default."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that matter, by name."""

    def devices(self) -> list[str]:
        """Return the devices found, such as "cpu" or "cuda:0 NVIDIA A100"."""

    def create(
        self, config: C_contra, train: Sequence[Sample], device: str, start: Path | None = None, ranks: Ranks = ALONE
    ) -> Training:
        """Build network, optimizer and sampler.

        Args:
            config: All settings, fitted to the initial model by `LightBackend.adopt`.
            train: Training items.
            device: "auto", "cpu" or "cuda".
            start: Folder that `Model.export` wrote, whose weights and thresholds to begin with; None: fresh weights.
            ranks: This process among those that train one model together. They take equal steps with the loss and the
                gradient of all their crops together, so that their weights stay equal.

        Raises:
            InvalidArgument: The data cannot be trained on, or the device is missing.
        """

    def open_model(self, folder: Path, device: str) -> Model:
        """Open what `Model.export` wrote."""

    def import_model(
        self, source: Path, target: Path, settings: trainer_pb2.ImportSettings, record: Mapping[str, Any] | None
    ) -> None:
        """Check a model of the stock tool and write it as `Model.export` would.

        Args:
            source: A file, or the folder of an unpacked zip; nothing in it is trusted.
            target: An empty folder.
            settings: The user's description of the model.
            record: The `CONFIG_FILE` that our own export put beside it; None: it has none.

        Raises:
            InvalidArgument: It is no model of this backend, or one that cannot be used here; says why.
            ValueError: A value in its files is outside its range.
            RuntimeError: A file cannot be read.
        """


@runtime_checkable
class CheckpointBackend(Protocol):
    """A backend whose checkpoints can predict, so that people see what a training knows so far."""

    def open_checkpoint(self, folder: Path, device: str) -> Model:
        """Open the weights in what `Training.save` wrote."""


@runtime_checkable
class HalfPrecisionBackend(Protocol):
    """A backend that can train in bfloat16, as `Plan.precision` says."""

    def has_bfloat16(self, device: str) -> bool:
        """Return whether a device, "auto", "cpu" or "cuda", computes in bfloat16 in hardware."""

    def gains_from_bfloat16(self, device: str) -> bool:
        """Return whether a training whose settings leave the number format open should take bfloat16 there."""


@dataclass(frozen=True, kw_only=True)
class BackendSpec(Generic[C]):
    """All that the trainer needs to know about a backend; the package's `__init__` exports it as `BACKEND`."""

    name: str
    """The backend's name: that of its field in `TrainingSettings`."""
    package: str
    """Import name of the package, `__name__` in its `__init__`; child processes find the spec by it."""
    default_port: int
    """Port that the service listens on unless CELLSPARSE_PORT is set."""
    node_command: NodeCommand
    """How the processes of a training that needs several are started on a node (see `launch`)."""
    light: Callable[[], LightBackend[C]]
    """Imports and returns the part without a framework."""
    framework: Callable[[], Backend[C]]
    """Imports and returns the part with the framework; called in child processes only."""
    preload: str
    """Import names that a fork server loads before it forks, with commas between them: that of the module which
    `framework` returns, and what a training imports later."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the native libraries of its processes need, unless they are set already."""


def find_backend(package: str) -> BackendSpec[Config]:
    """Return the spec that a package exports.

    Raises:
        ImportError: There is no such package.
        AttributeError: It is no backend's.
    """
    return cast("BackendSpec[Config]", importlib.import_module(package).BACKEND)


def installed_backends() -> dict[str, BackendSpec[Config]]:
    """Return all installed backends by name, in alphabetical order."""
    found = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.name)
    return {entry.name: cast("BackendSpec[Config]", entry.load()) for entry in found}
