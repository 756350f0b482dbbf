"""What the widget has done in other threads: train and predict, list models, export one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from cellsparse import Item, enum_names, runs
from cellsparse.errors import Cancelled, CellsparseError, InvalidArgument, RunFailedError
from cellsparse_napari.labels import Background, count_cells, dataset_labels, describe_missing_cells
from cellsparse_napari.pictures import Picture, item_names, plain_name, read, read_labels
from cellsparse_napari.progress import Progress, RunProgress
from cellsparse_napari.session import Session
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

if TYPE_CHECKING:
    from cellsparse_common.imaging.types import Labels

MOST_MODELS = 200
PATIENCE_SECONDS = 600.0
"""How long a server that trains may be away: long enough to restart it, or to find the network again."""
EXPORTS = {
    "bioimageio": "BioImage.IO package (*.zip)",
    "native": "Files of the stock tool (*.zip)",
    "onnx": "ONNX (*.onnx)",
    "torchscript": "TorchScript (*.pt)",
    "saved_model": "TensorFlow SavedModel (*.zip)",
}
"""What a file dialog calls the export formats."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One image with what is drawn on it."""

    image: Picture
    """The image."""
    labels: Any
    """Data of the labels layer with the cells."""
    labels_name: str
    """Name of that layer."""
    background: Background
    """Where background is."""
    background_labels: Any = None
    """Data of the second labels layer, if there is one."""
    background_name: str = ""
    """Name of that layer."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A training as the user wants it."""

    drawn: Sequence[Drawn]
    """The images to train on, which are also segmented at the end."""
    backend: str
    """Such as "cellpose"."""
    preset: str
    """ "fast" or "paper"."""
    initial_model: str = ""
    """Model that training starts from; empty: fresh weights."""
    steps: int = 0
    """Optimizer steps; 0: as the preset says."""


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """An image was segmented."""

    index: int
    """Which of the images."""
    model: str
    """Id of the model."""
    labels: "Labels"
    """0 background, n > 0 cell n, axes YX or ZYX."""

    @property
    def cells(self) -> int:
        """How many cells were found."""
        return count_cells(self.labels)


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model to choose from."""

    id: str
    """Its id."""
    backend: str
    """Its backend."""
    title: str
    """What the list shows."""


def train(session: Session, order: Order) -> Iterator[Progress | ModelEntry | Segmented]:
    """Upload what is drawn, train, and segment the images with the new model.

    Yields:
        Progress; when the model is there, its entry; then each image's segmentation.

    Raises:
        CellsparseError: It failed.
        Cancelled: The user cancelled it.
    """
    yield Progress(text="Reading what is drawn ...")
    items = _items(session, order.drawn)
    yield Progress(text="Sending the images ...")
    with session.client() as client:
        dataset = client.create_dataset(f"napari {plain_name(order.drawn[0].image.name)}", items)
    settings: dict[str, Any] = {"preset": order.preset}
    settings |= {"steps": order.steps} if order.steps else {}
    settings |= {"initial_model": order.initial_model} if order.initial_model else {}
    with session.client() as client:
        # The key tells the server that a repeated call means the same run.
        run_id = client.train(dataset.id, order.backend, request_id=str(uuid4()), **settings).id
    session.began(run_id)
    try:
        yield from _follow(session, run_id)
        with session.client() as client:  # a new one, as a restarted server may have another address
            model = model_entry(client.model(_finished(client.run(run_id)).id))
    finally:
        session.ended()
    yield model
    yield from segment(session, model.id, [drawn.image for drawn in order.drawn])


def segment(session: Session, model: str, images: Sequence[Picture]) -> Iterator[Progress | Segmented]:
    """Segment images with a model.

    Yields:
        Progress, and each image's segmentation.

    Raises:
        CellsparseError: It failed.
        Cancelled: The user cancelled it.
    """
    for index, image in enumerate(images):
        yield Progress(text=f"Segmenting {image.name} ...", fraction=index / len(images) if len(images) > 1 else None)
        with session.client() as client:
            labels = client.predict(model, read(image), axes=image.item_axes)
        yield Segmented(index=index, model=model, labels=labels)


def list_models(session: Session) -> Iterator[list[ModelEntry]]:
    """Yield once the newest models."""
    with session.client() as client:
        yield [model_entry(model) for model in islice(client.models(), MOST_MODELS)]


def export(session: Session, model: str, form: str, path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Write a model into a file, and yield the file's path."""
    with session.client() as client:
        client.export(model, form, path, force=overwrite)
    yield path


def model_entry(model: orchestrator_pb2.Model) -> ModelEntry:
    """Return a model as the list shows it."""
    parts = [model.name or model.id]
    if "score" in model.validation:
        parts.append(f"score {model.validation['score']:.2f}")
    if model.created_at.seconds:
        parts.append(f"{model.created_at.ToDatetime():%Y-%m-%d %H:%M} UTC")
    return ModelEntry(id=model.id, backend=model.backend, title=", ".join(parts))


def _items(session: Session, drawn: Sequence[Drawn]) -> list[Item]:
    """Return the items of the dataset; all checks are made before anything is sent.

    Raises:
        InvalidArgument: Layers that do not fit together, or no cell at all.
    """
    items: list[Item] = []
    cells = 0
    for name, one in zip(item_names(one.image.name for one in drawn), drawn, strict=True):
        session.check()
        numbers = read_labels(one.labels, one.image, one.labels_name)
        second = one.background_labels
        marked = None if second is None else read_labels(second, one.image, one.background_name)
        labels = dataset_labels(numbers, one.background, marked)
        cells += count_cells(labels)
        image, image_axes = read(one.image), one.image.item_axes
        items.append(
            Item(name=name, split="train", image=image, label=labels, axes=image_axes, spacing=one.image.spacing)
        )
    if not cells:
        raise InvalidArgument(describe_missing_cells(drawn[0].background), "labels")
    if len({item.axes.replace("C", "") for item in items}) > 1:
        raise InvalidArgument("Some of the images are planes and others stacks; train on one kind at a time.", "image")
    return items


def _follow(session: Session, run_id: str) -> Iterator[Progress]:
    """Yield what goes on until the run has ended. An outage is noted while the connection is tried again."""
    progress = RunProgress()

    def lost(error: CellsparseError, _: float) -> None:
        session.note(f"{error.message} Trying again ...")

    with session.client() as client:
        for event in runs.watch(client.connection, run_id, patience=PATIENCE_SECONDS, on_lost=lost):
            yield progress.update(event)


def _finished(run: orchestrator_pb2.Run) -> orchestrator_pb2.Run:
    """Return a run that has a model.

    Raises:
        Cancelled: The run was cancelled.
        RunFailedError: It failed.
    """
    if run.state == common_pb2.RUN_STATE_SUCCEEDED:
        return run
    if run.state == common_pb2.RUN_STATE_CANCELLED:
        raise Cancelled("The training was cancelled.")
    state = enum_names.name(common_pb2.RunState.DESCRIPTOR, run.state)
    raise RunFailedError(run.message or f"The training {state}.")
