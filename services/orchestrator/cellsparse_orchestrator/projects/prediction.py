"""Predict an image of a project with a model, in one call or window by window."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellsparse_common.channels import MAX_CHANNELS
from cellsparse_common.errors import Internal, ResourceExhausted
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.scores import Scores, cell_numbers
from cellsparse_common.imaging.types import Indices, Labels
from cellsparse_common.storage import ObjectStore
from cellsparse_common.storage.blobs import read_blob
from cellsparse_orchestrator.projects.stitching import OVERLAP, WINDOW, stitch, windows
from cellsparse_orchestrator.projects.tiling import Extent
from cellsparse_proto.v1 import trainer_pb2

MAX_BYTES = 60 * 2**20
"""Largest file that fits into a message; larger ones go through the store."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The cells of an image."""

    labels: Labels
    """Axes YX or ZYX: 0 nothing, n > 0 cell n."""
    scores: Scores
    """How sure the model is of each cell, by its number; of numbers that no cell has, and of 0, any value."""
    step: int
    """Step of the weights that found them; 0 for a model."""


Call = Callable[[trainer_pb2.PredictRequest], trainer_pb2.PredictResponse]
"""Predicts one image file."""


def predict_image(
    store: ObjectStore,
    sha256: str,
    extent: Extent,
    request: trainer_pb2.PredictRequest,
    call: Call,
    call_large: Call,
    max_pixels: int,
) -> Prediction:
    """Return the cells of an image.

    Each window of an image that is too large for the trainer is normalised by its own percentiles, as a smaller image
    would be. Any other is segmented as a whole.

    Args:
        store: Holds the image.
        sha256: Its blob.
        extent: Its size.
        request: What to ask for each part of it.
        call: Predicts one image file.
        call_large: Predicts one that does not fit into a message.
        max_pixels: Largest image that the trainer takes, pixels.

    Raises:
        ResourceExhausted: It is a stack too large for the trainer.
        StorageError: The store failed.
    """
    data = read_blob(store, sha256)
    if math.prod(extent.shape) <= max_pixels:
        return predict_file(data, request, call if len(data) <= MAX_BYTES else call_large, extent.shape)
    if extent.planes > 1:
        raise ResourceExhausted(
            f"The stack has {math.prod(extent.shape):,} voxels; prediction takes stacks of at most {max_pixels:,}."
        )
    pixels = decode_image(data, max_pixels=math.prod(extent.shape), values_per_pixel=MAX_CHANNELS, trusted=True).array
    del data
    return _predict_windows(pixels, extent, request, call, min(WINDOW, math.isqrt(max_pixels)))


def _predict_windows(
    pixels: npt.NDArray[np.generic], extent: Extent, request: trainer_pb2.PredictRequest, call: Call, size: int
) -> Prediction:
    whole: Labels = np.zeros((extent.height, extent.width), np.int32)
    scores, seen = np.zeros(1, np.float32), np.zeros(1, np.int64)
    step = 0
    for window in windows(extent.height, extent.width, size, min(OVERLAP, size // 4)):
        part = np.ascontiguousarray(pixels[window.rows, window.columns])
        found = predict_file(encode_tiff(part), request, call, part.shape[:2])
        numbers = stitch(whole, found.labels, window, len(scores) - 1)
        more = max(int(numbers.max()) + 1 - len(scores), 0)
        scores, seen = np.pad(scores, (0, more)), np.pad(seen, (0, more))
        _keep_best_seen(scores, seen, numbers, found)
        step = found.step
    return Prediction(labels=whole, scores=scores, step=step)


def _keep_best_seen(scores: Scores, seen: Indices, numbers: Indices, found: Prediction) -> None:
    """Take over the score of each cell of a window that no window before showed more pixels of.

    Args:
        scores: Of the whole image's cells, changed in place.
        seen: Most pixels of each that a window showed, changed in place.
        numbers: Number in the whole image of each of the window's cells.
        found: The window's cells.
    """
    areas = np.bincount(found.labels.ravel(), minlength=len(numbers))
    for cell in np.flatnonzero(areas[1:]) + 1:
        if areas[cell] > seen[numbers[cell]]:
            seen[numbers[cell]], scores[numbers[cell]] = areas[cell], found.scores[cell]


def predict_file(data: bytes, request: trainer_pb2.PredictRequest, call: Call, shape: tuple[int, ...]) -> Prediction:
    """Return the cells of an image file that fits into one call.

    Args:
        data: The file.
        request: What to ask for.
        call: Predicts one image file.
        shape: Shape of its label image.
    """
    asked = trainer_pb2.PredictRequest()
    asked.CopyFrom(request)
    asked.image = data
    answer = call(asked)
    image = decode_image(answer.label, max_pixels=math.prod(shape), labels=True, stacks=len(shape) == 3, trusted=True)
    labels = image.array.astype(np.int32, copy=False)
    numbers = cell_numbers(labels)
    if len(answer.scores) != len(numbers):
        raise Internal(f"The trainer answered {len(answer.scores)} scores for {len(numbers)} cells.")
    scores = np.zeros(int(labels.max(initial=0)) + 1, np.float32)
    scores[numbers] = answer.scores
    return Prediction(labels=labels, scores=scores, step=answer.step)
