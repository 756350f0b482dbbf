"""What a run trains with and on, decided by the server: the worker resolves nothing again."""

import threading
from collections.abc import Sequence
from typing import Generic

from cellsparse_common.datasets import read_manifest
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.storage import ObjectStore
from cellsparse_proto.v1 import dataset_pb2, trainer_pb2
from cellsparse_trainer.config.budget import DataSummary, fit_to_data, summarize_items
from cellsparse_trainer.contract import C, GrowingBackend, LightBackend, with_plan
from cellsparse_trainer.data.samples import trainable_items, validation_items
from cellsparse_trainer.data.stacks import find_axes, labelled_planes, spread
from cellsparse_trainer.processes.job import Inputs, Plane
from cellsparse_trainer.training.channel_choice import choose_channels, count
from cellsparse_trainer.training.initial_model import apply_initial_model, initial_inputs
from cellsparse_trainer.training.kept_settings import keep_settings

_MOST_PLANES = 16
"""Most planes of stacks that a backend of planes validates on."""
_MOST_KEPT = 10_000
"""Most label images whose planes are remembered."""
Items = Sequence[dataset_pb2.DatasetItem]


class Resolution(Generic[C]):
    """Resolves the requests of one server.

    Looking for labelled planes reads all label images. What it finds is kept by label image, so that a call that is
    repeated because it took too long continues where the first one is.

    Args:
        light: The backend's part without a framework.
        store: Holds datasets and models.
    """

    def __init__(self, light: LightBackend[C], store: ObjectStore) -> None:
        self._light = light
        self._store = store
        self._lock = threading.Lock()
        self._planes: dict[str, list[int]] = {}

    def __call__(self, request: trainer_pb2.StartTrainingRequest, store: ObjectStore | None = None) -> tuple[C, Inputs]:
        """Return the configuration of a run and what it trains on (see `kept_settings` for later attempts).

        Args:
            request: The run's.
            store: The store as the run's attempt reaches it; None: as this server does.

        Raises:
            NotFound: There is no such dataset or initial model.
            FailedPrecondition: The initial model belongs to another backend, or another release has begun the run
                with settings that this one does not know.
            InvalidArgument: A combination of settings is not allowed, or not for this dataset or initial model.
            StorageError: A label image cannot be read, or what is kept with the run.
        """
        store = store or self._store
        manifest = read_manifest(store, request.dataset_id)
        train, axes = trainable_items(manifest), find_axes(manifest)
        validation = validation_items(manifest)

        def resolved(settings: trainer_pb2.TrainingSettings) -> C:
            config = resolve(self._light, settings, len(train), axes)
            if axes == "ZYX" and config.plan.crop_depth is None:
                config = resolve(self._light, settings, len(self._find_planes(train, store)), axes)
            config = grow(self._light, config, settings, summarize_items(train))
            config = apply_initial_model(config, settings, store, self._light)
            return choose(config, settings, [*train, *validation], store)

        config = keep_settings(request, store, resolved)
        planes = self._find_planes(train, store) if axes == "ZYX" and config.plan.crop_depth is None else None
        shown = None if planes is None else spread(self._find_planes(validation, store) or planes, _MOST_PLANES)
        inputs = Inputs(
            config=config.to_json(),
            train=train,
            validation=validation,
            train_planes=planes,
            validation_planes=shown or [],
        )
        return config, inputs

    def _find_planes(self, items: Items, store: ObjectStore) -> list[Plane]:
        with self._lock:
            for item in items:
                if item.label_sha256 not in self._planes:
                    self._planes[item.label_sha256] = [plane for _, plane in labelled_planes(store, [item])]
            found = [(index, plane) for index, item in enumerate(items) for plane in self._planes[item.label_sha256]]
            while len(self._planes) > _MOST_KEPT:
                self._planes.pop(next(iter(self._planes)))
            return found


def resolve(light: LightBackend[C], settings: trainer_pb2.TrainingSettings, items: int, axes: str) -> C:
    """Return the backend's configuration for a number of training items of some axes.

    Raises:
        InvalidArgument: A combination of settings is not allowed, or not for this dataset.
    """
    stacks = axes == "ZYX"
    if settings.HasField("crop_depth") and not stacks:
        raise InvalidArgument(
            f"crop_depth is {settings.crop_depth}, but the dataset's items are 2D; it is for stacks only.",
            "settings.crop_depth",
        )
    try:
        return light.resolve(settings, items, stacks=stacks)
    except ValueError as error:
        raise InvalidArgument(str(error), "settings") from error


def choose(config: C, settings: trainer_pb2.TrainingSettings, items: Items, store: ObjectStore) -> C:
    """Return the configuration with the channels of the images that the network gets.

    Raises:
        InvalidArgument: They do not fit the images or the network.
    """
    if not settings.channels and (settings.initial_model or all(count(item) == 1 for item in items)):
        return config  # as the initial model has it, or as there is no other choice
    kind = type(config)
    fixed = initial_inputs(settings, store) if settings.initial_model and kind.FIXED_CHANNELS else 0
    plan = choose_channels(config.plan, settings, items, tool=kind.TOOL, most=kind.MOST_CHANNELS, inputs=fixed)
    return with_plan(config, plan)


def grow(light: LightBackend[C], config: C, settings: trainer_pb2.TrainingSettings, data: DataSummary) -> C:
    """Return the configuration fitted to the number and the variety of the labelled cells.

    Raises:
        InvalidArgument: The backend refuses a combination of settings for these data.
    """
    plan = fit_to_data(config.plan, settings, data)
    config = with_plan(config, plan)
    if not isinstance(light, GrowingBackend):
        return config
    try:
        grown: C = light.grow(config, settings, data)
    except ValueError as error:
        raise InvalidArgument(str(error), "settings") from error
    return grown
