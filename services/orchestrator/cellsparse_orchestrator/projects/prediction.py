"""Predict an image of a project with a model, in one call or window by window."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import ResourceExhausted
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.types import Labels
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.projects.stitching import OVERLAP, WINDOW, stitch, windows
from cellsparse_orchestrator.projects.tiling import Extent
from cellsparse_proto.v1 import trainer_pb2

MAX_BYTES = 60 * 2**20
"""Largest file that Predict takes."""

Call = Callable[[trainer_pb2.PredictRequest], trainer_pb2.PredictResponse]
"""Predicts one image file."""


def predict_image(
    store: ObjectStore,
    sha256: str,
    extent: Extent,
    request: trainer_pb2.PredictRequest,
    call: Call,
    max_pixels: int,
) -> tuple[Labels, int]:
    """Return the cells of an image (0 nothing, n > 0 cell n), and the step of the weights that found them.

    Each window of a large image is normalised by its own percentiles, as a smaller image would be.

    Args:
        store: Holds the image.
        sha256: Its blob.
        extent: Its size.
        request: What to ask for each part of it.
        call: Predicts one image file.
        max_pixels: Largest image that the trainer takes, pixels.

    Raises:
        ResourceExhausted: It is a stack too large for one call.
        StorageError: The store failed.
    """
    data = store.get(keys.blob(sha256))
    if len(data) <= MAX_BYTES and math.prod(extent.shape) <= max_pixels:
        return _predict(data, request, call, extent.shape)
    if extent.planes > 1:
        raise ResourceExhausted(
            f"The stack has {math.prod(extent.shape):,} voxels in {len(data) / 2**20:.0f} MiB; prediction takes stacks "
            f"of at most {max_pixels:,} voxels and {MAX_BYTES // 2**20} MiB."
        )
    pixels = decode_image(data, max_pixels=math.prod(extent.shape)).array
    del data
    return _predict_windows(pixels, extent, request, call, min(WINDOW, math.isqrt(max_pixels)))


def _predict_windows(
    pixels: npt.NDArray[np.generic], extent: Extent, request: trainer_pb2.PredictRequest, call: Call, size: int
) -> tuple[Labels, int]:
    whole: Labels = np.zeros((extent.height, extent.width), np.int32)
    cells = step = 0
    for window in windows(extent.height, extent.width, size, min(OVERLAP, size // 4)):
        part = np.ascontiguousarray(pixels[window.rows, window.columns])
        labels, step = _predict(encode_tiff(part), request, call, part.shape[:2])
        cells = stitch(whole, labels, window, cells)
    return whole, step


def _predict(
    data: bytes, request: trainer_pb2.PredictRequest, call: Call, shape: tuple[int, ...]
) -> tuple[Labels, int]:
    asked = trainer_pb2.PredictRequest()
    asked.CopyFrom(request)
    asked.image = data
    answer = call(asked)
    image = decode_image(answer.label, max_pixels=math.prod(shape), labels=True, stacks=len(shape) == 3)
    return image.array.astype(np.int32, copy=False), answer.step
