"""Predictions and scores, as the inference processes make them (see `processes.inference_pool`)."""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.channels import clean_names, find_channels
from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.datasets import read_image, read_labels
from cellsparse_common.errors import (
    FailedPrecondition,
    InvalidArgument,
)
from cellsparse_common.files import disk_errors
from cellsparse_common.imaging.file_content import read_content
from cellsparse_common.imaging.images import (
    Image,
    decode_image,
    normalize,
    normalize_channels,
    take_channels,
    to_gray,
    write_tiff,
)
from cellsparse_common.imaging.label_formats import LabelOutput, encode, name_of
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_common.imaging.layout import STACK_HINT
from cellsparse_common.imaging.scores import Segmentation
from cellsparse_common.imaging.types import Labels
from cellsparse_common.scoring.matching import Counts, match_counts
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import dataset_pb2, trainer_pb2
from cellsparse_trainer.contract import (
    CHECKPOINT_CARD,
    BackendSpec,
    CheckpointBackend,
    Config,
    Model,
    StackModel,
    find_backend,
)
from cellsparse_trainer.data.fed_image import LARGE_PIXELS, FedImage
from cellsparse_trainer.models.cache import CacheBounds, OpenModels, kept_model
from cellsparse_trainer.models.windows import LargeSegmentation, WindowModel, segment_large
from cellsparse_trainer.processes.inference_process import sendable

_KILL_SECONDS = 5.0
FindCheckpoint = Callable[[Path, str], tuple[Path, int]]
"""Returns the local folder and step of a run's newest checkpoint, given a folder for checkpoints and the run's id."""


@dataclass(frozen=True, kw_only=True)
class InferenceContext:
    """What an inference process needs to open models."""

    package: str
    """Import name of the backend's package."""
    cache: Path
    """Folder for downloaded models."""
    device: str
    """"auto", "cpu" or "cuda"."""
    checkpoints: Path = Path()
    """Folder for checkpoints to predict with (see `training.newest`)."""
    bounds: CacheBounds = field(default_factory=CacheBounds)
    """How many models are kept."""


@dataclass(frozen=True)
class Asked:
    """Channels of an image that a caller names."""

    channels: Sequence[str] = ()
    """Numbers from 0 or names; empty: none is named."""
    field: str = "channels"
    """The request's field, for messages."""


_NOT_ASKED = Asked()


def predict_file(
    context: InferenceContext, serialized_request: bytes, max_pixels: int, find_checkpoint: FindCheckpoint | None = None
) -> bytes:
    """Answer a serialized `PredictRequest` with a serialized `PredictResponse`. Runs in the inference process.

    Args:
        context: How to open models.
        serialized_request: The request.
        max_pixels: Most pixels of the image.
        find_checkpoint: Finds the checkpoint to predict with, in turn: whoever asks for one waits in line like all
            others. None: the model.

    Raises:
        NotFound: There is no such model, or no checkpoint yet.
        InvalidArgument: The file is not the 2D image or stack that the model takes, or lacks the requested channel or,
            if none is requested, the model's.
        ResourceExhausted: The image has more than `max_pixels` pixels, or its cells' outlines are too long.
    """
    request = trainer_pb2.PredictRequest.FromString(serialized_request)
    data = _transferred(request.transfer_id) if request.transfer_id else request.image
    image = decode_image(data, max_pixels=max_pixels, stacks=True, axes=request.axes)
    del data
    if request.image_channels:
        image = _with_names(image, list(request.image_channels))
    start = time.monotonic()
    asked = Asked(request.channels)
    if request.HasField("channel") and not request.channels:
        asked = Asked([str(request.channel)], field="channel")
    checkpoint, step = find_checkpoint(context.checkpoints, request.model_id) if find_checkpoint else (None, 0)
    found = _segment(context, request.model_id, image, asked, checkpoint)
    if request.min_pixels:
        found = found.without_small(request.min_pixels)
    label = found.labels
    answer = trainer_pb2.PredictResponse(cells=len(found.scores), scores=found.scores.tolist(), step=step)
    name = name_of(request.format)
    if name == "tiff" and request.transfer_id:
        _put_labels(request.transfer_id, label, image.spacing)
    elif name == "tiff":
        answer.label = encode_labels(label, image.spacing)
    else:
        file = LabelOutput(label=label, spacing=image.spacing, image_name=request.image_name or "image.tif")
        output = encode(name, file)
        if request.transfer_id:
            open_store(StoreSettings()).put(keys.transfer(request.transfer_id, "result"), output)
        else:
            answer.output = output
    answer.seconds = time.monotonic() - start
    return answer.SerializeToString()


def predict_files(arguments: Sequence[tuple[Any, ...]]) -> list[bytes | Exception]:
    """Answer several requests with one model, given the arguments of `predict_file` for each.

    The network sees one image at a time, so that each result is what it would be alone.

    Returns:
        An answer or an error for each.
    """
    found: list[bytes | Exception] = []
    for each in arguments:
        try:
            found.append(predict_file(*each))
        except Exception as error:  # noqa: BLE001 - each caller gets its own
            found.append(sendable(error, "prediction"))
    return found


def _with_names(image: Image, names: list[str]) -> Image:
    """Return an image whose channels have these names."""
    count = image.array.shape[-1] if image.axes.endswith("C") else 1
    if len(names) != count:
        raise InvalidArgument(
            f"There are {len(names)} names of channels; the image has {count}.",
            "image_channels",
        )
    return replace(image, channels=clean_names(names, count))


def _transferred(transfer_id: str) -> bytes:
    """Return an image that came through the store; a large one is not in memory."""
    with disk_errors("write a temporary file"), tempfile.TemporaryDirectory(prefix="cellsparse-") as folder:
        path = Path(folder) / "image"
        open_store(StoreSettings()).fetch(keys.transfer(transfer_id, "image"), path)
        return read_content(path)


def _put_labels(transfer_id: str, label: Labels, spacing: Sequence[float]) -> None:
    """Write a label image into the store without holding its file in memory."""
    stack = label.ndim == 3
    with disk_errors("write a temporary file"), tempfile.TemporaryDirectory(prefix="cellsparse-") as folder:
        path = Path(folder) / "result"
        with path.open("xb") as file:
            write_tiff(file, label, stack=stack, spacing=spacing if stack else ())
        open_store(StoreSettings()).put(keys.transfer(transfer_id, "result"), path)


def evaluate_item(
    context: InferenceContext, serialized_request: bytes, serialized_item: bytes, ious: list[float]
) -> tuple[list[Counts], bool]:
    """Score a model on one item. Runs in the inference process.

    Args:
        context: How to open models.
        serialized_request: An `EvaluateRequest`.
        serialized_item: A `DatasetItem`.
        ious: IoU thresholds.

    Returns:
        Counts per IoU threshold, and whether the item has unlabelled pixels.

    Raises:
        InvalidArgument: The model does not take such items: 2D or stacks, or their channels.
    """
    request = trainer_pb2.EvaluateRequest.FromString(serialized_request)
    item = dataset_pb2.DatasetItem.FromString(serialized_item)
    store = open_store(StoreSettings())
    true = read_labels(store, item)
    image = Image(array=read_image(store, item), axes=item.axes, channels=tuple(item.channels))
    try:
        label = _segment(context, request.model_id, image, Asked(request.channels)).labels
    except InvalidArgument as error:
        field = "channels" if request.channels else "dataset_id"
        raise InvalidArgument(f"Item {item.name!r}: {error.message}", field) from error
    return match_counts(true, label, ious), bool((true < 0).any())


_OPENED = OpenModels()
_CHECKPOINT = "checkpoint"


def _segment(
    context: InferenceContext, model_id: str, image: Image, asked: Asked = _NOT_ASKED, checkpoint: Path | None = None
) -> Segmentation | LargeSegmentation:
    model, card = _open(context, model_id) if checkpoint is None else _open_checkpoint(context, model_id, checkpoint)
    how = {**card["preprocessing"], "channel_names": card.get("channel_names", ())}
    stack = image.axes.startswith("Z")
    takes_stacks = card.get("axes", "YX") == "ZYX"
    segment = model.segment
    if stack and not takes_stacks and isinstance(model, StackModel):
        segment = model.segment_stack
    elif stack != takes_stacks:
        kinds = {False: "2D images (axes YX)", True: "stacks (axes ZYX)"}
        hint = f" {STACK_HINT}" if takes_stacks and image.axes == "YXC" else ""
        raise InvalidArgument(
            f"Model {model_id} takes {kinds[takes_stacks]}; this one has shape {image.array.shape}, axes {image.axes}."
            f"{hint}",
            "image",
        )
    if not stack and math.prod(image.array.shape[:2]) >= LARGE_PIXELS and isinstance(model, WindowModel):
        feed = _feed(image, how, asked, stack=stack)
        return segment_large(model, FedImage(image.array, feed, how["lower_percentile"], how["upper_percentile"]))
    return segment(_as_fed(image, how, asked, stack=stack))


def _as_fed(image: Image, how: Mapping[str, Any], asked: Asked, *, stack: bool) -> npt.NDArray[np.float32]:
    """Return a whole image as a model's network gets it (see `_feed`)."""
    taken = _feed(image, how, asked, stack=stack)(image.array)
    scale = how["lower_percentile"], how["upper_percentile"]
    return normalize(taken, *scale) if taken.ndim == 2 + stack else normalize_channels(taken, *scale)


def _feed(
    image: Image, how: Mapping[str, Any], asked: Asked, *, stack: bool
) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]:
    """Return what takes, of any part of an image, the channels that a model's network gets.

    Args:
        image: The image.
        how: The preprocessing on the model's card, and the names of its channels.
        asked: Channels that the caller names; empty: those of the card, by their names where the image has these. Where
            it lacks a number but has as many as the network takes, all of its own.
        stack: Whether it is a stack.

    Raises:
        InvalidArgument: The image lacks a channel, or another number of them is asked for than the model takes.
    """
    trained, there = tuple(how.get("channels", ())), image.array.shape[-1] if image.axes.endswith("C") else 1
    takes = max(1, len(trained))
    channel = how["channel"]
    if asked.channels:
        found = find_channels(asked.channels, image.channels, there, asked.field)
        if max(1, len(found)) != takes:
            raise InvalidArgument(
                f"channels are {', '.join(asked.channels)}; the model takes {takes}, in the order it was trained with.",
                asked.field,
            )
        trained, channel = (found, None) if takes > 1 else ((), found[0] if found else None)
    elif named := _by_name(image.channels, how.get("channel_names", ()), trained or (channel,)):
        trained, channel = (named, None) if trained else ((), named[0])
    elif trained and max(trained) >= there:
        if there != takes:
            raise InvalidArgument(
                f"The model takes channels {', '.join(map(str, trained))} of an image; this one has {there}.",
                "image",
            )
        trained = tuple(range(there))
    if trained:
        return lambda part: take_channels(part, trained, stack=stack)
    return lambda part: to_gray(part, channel, stack=stack)


def _by_name(there: Sequence[str], names: Sequence[str], numbers: Sequence[int | None]) -> tuple[int, ...]:
    """Return where an image has the channels that a model was trained on; empty if it has none of their names.

    Args:
        there: Names of the image's channels.
        names: Names of the model's channels, in the network's order; empty: they are not known.
        numbers: Their places in the images that it was trained on.

    Raises:
        InvalidArgument: The image has some of them, in other places, and not all.
    """
    ours, theirs = ([name.casefold() for name in each] for each in (there, names))
    if len(theirs) != len(numbers) or any(name.isdigit() for name in theirs):
        return ()
    found = [ours.index(name) for name in theirs if name in ours]
    if len(found) == len(theirs):
        return tuple(found)
    if any(name in ours and ours.index(name) != number for name, number in zip(theirs, numbers, strict=True)):
        raise InvalidArgument(
            f"The model was trained on the channels {', '.join(names)}; this image has {', '.join(there)}. Say which "
            "ones to take with channels.",
            "channels",
        )
    return ()


def _open(context: InferenceContext, model_id: str) -> tuple[Model, dict[str, Any]]:
    """Return a model and its card; it stays open for a while."""

    def open_it() -> tuple[tuple[Model, dict[str, Any]], int]:
        with find_model(context, model_id) as (spec, folder, card):
            return (spec.framework().open_model(folder, context.device), card), _bytes_of(folder)

    found: tuple[Model, dict[str, Any]] = _OPENED.get((context.package, model_id), context.bounds, open_it)
    return found


def _open_checkpoint(context: InferenceContext, run_id: str, folder: Path) -> tuple[Model, dict[str, Any]]:
    """Return a checkpoint as a model, and how to feed it; the newest one of all runs stays open.

    Raises:
        FailedPrecondition: It is of another backend, or of a version that kept too little, or the backend cannot.
    """
    key = (context.package, _CHECKPOINT, str(folder))

    def open_it() -> tuple[tuple[Model, dict[str, Any]], int]:
        spec = find_backend(context.package)
        backend = spec.framework()
        card = json.loads((folder / CHECKPOINT_CARD).read_text()) if (folder / CHECKPOINT_CARD).is_file() else {}
        if not card or not isinstance(backend, CheckpointBackend):
            raise FailedPrecondition(f"The checkpoints of run {run_id} cannot predict; wait until it has a model.")
        if card["backend"] != spec.name:
            raise FailedPrecondition(f"Run {run_id} trains a {card['backend']} model; this trainer is {spec.name}.")
        _OPENED.drop(lambda other: isinstance(other, tuple) and _CHECKPOINT in other)
        return (backend.open_checkpoint(folder, context.device), card), _bytes_of(folder)

    found: tuple[Model, dict[str, Any]] = _OPENED.get(key, context.bounds, open_it)
    return found


@contextmanager
def find_model(context: InferenceContext, model_id: str) -> Iterator[tuple[BackendSpec[Config], Path, dict[str, Any]]]:
    """Give the backend, and a model's local folder and card. Runs in the inference process.

    Raises:
        NotFound: There is no such model.
        FailedPrecondition: It belongs to another backend.
    """
    spec = find_backend(context.package)
    with kept_model(open_store(StoreSettings()), model_id, context.cache, context.bounds) as (folder, card):
        if card["backend"] != spec.name:
            raise FailedPrecondition(f"Model {model_id} is a {card['backend']} model; this trainer is {spec.name}.")
        yield spec, folder, card


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
