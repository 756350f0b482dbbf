"""Which pixels are kept as background around the kept cells."""

import math
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from cellsparse_common.imaging.disk_array import BAND_BYTES, release
from cellsparse_common.imaging.types import Indices, Labels, Mask

LARGE_PIXELS = 2**24
"""Pixels of an image from which rings are drawn some rows at a time."""
GROW_SHARE = 0.25
"""Growing a row of a run costs about as much as the distance transform of four pixels."""


class Background(Enum):
    """Which background is kept; the numbers are those of the proto's BackgroundRule."""

    NONE = 1
    SHIFTED = 2
    RING = 3
    ALL = 4


def mark_background(
    sparse: Labels,
    label: npt.NDArray[np.integer[Any]],
    starts: Indices,
    lengths: Indices,
    *,
    rule: Background,
    distance: int,
    plane_step: float = 1.0,
) -> None:
    """Set the kept background pixels of a sparse label image to 0, in place.

    Only pixels that the dense label image calls background (0) become background: cells and unlabelled pixels stay.

    Args:
        sparse: int32 YX or ZYX, C order, kept cells set and all else -1; written.
        label: The dense label image, integer, the same axes.
        starts: First pixel of each run of kept cells' pixels, index into the flattened image.
        lengths: Pixels of each of these runs.
        rule: Which background.
        distance: Pixels, for SHIFTED (which stays in its plane) and RING.
        plane_step: Distance of a stack's planes in pixels, for RING.
    """
    # Where the dense label image is 0 the sparse one is still -1, and adding 1 sets it to 0: far faster than a mask.
    if rule is Background.ALL:
        for rows in row_bands(label):
            sparse[rows] += label[rows] == 0
            release(sparse)
    elif rule is Background.SHIFTED:
        pixels = run_pixels(starts, lengths)
        y, x = np.divmod(pixels % (label.shape[-2] * label.shape[-1]), label.shape[-1])
        moved = pixels - np.minimum(y, distance) * label.shape[-1] - np.minimum(x, distance)
        sparse.reshape(-1)[moved[label.reshape(-1)[moved] == 0]] = 0
    elif rule is Background.RING and label.ndim == 3:
        mark_ring_of_stack(sparse, label, starts, lengths, distance=distance, plane_step=plane_step)
    elif rule is Background.RING and label.size >= LARGE_PIXELS:
        for rows in row_bands(label):
            near = _grow_runs(*runs_near(starts, lengths, label.shape[1], rows, distance), label.shape, distance, rows)
            sparse[rows] += near & (label[rows] == 0)
            release(sparse)
    elif rule is Background.RING:
        sparse += _near_runs(starts, lengths, label.shape, distance) & (label == 0)


def row_bands(label: npt.NDArray[np.integer[Any]]) -> Iterator[slice]:
    """Yield some rows (or planes) of a label image after the other, letting go of those on disk."""
    step = max(1, BAND_BYTES // max(1, label[:1].nbytes))
    for start in range(0, len(label), step):
        yield slice(start, min(start + step, len(label)))
        release(label)


def runs_near(starts: Indices, lengths: Indices, width: int, rows: slice, distance: int) -> tuple[Indices, Indices]:
    """Return the runs of a 2D image that lie at most `distance` rows off some rows; `starts` is ascending."""
    first, last = np.searchsorted(starts, [(rows.start - distance) * width, (rows.stop + distance) * width])
    return starts[first:last], lengths[first:last]


def mark_ring_of_stack(
    sparse: Labels,
    label: npt.NDArray[np.integer[Any]],
    starts: Indices,
    lengths: Indices,
    *,
    distance: int,
    plane_step: float,
) -> None:
    """Set all background of a stack within `distance` of a kept cell to 0, in place.

    The squared distance to a cell of another plane is that within the plane plus that between the planes, so one 2D
    distance transform per plane that holds cells is enough. Memory beyond the stack is that of a few planes.
    """
    size = label.shape[1] * label.shape[2]
    of_plane = starts // size
    begins = np.searchsorted(of_plane, np.arange(label.shape[0] + 1))
    reach = min(int(distance / plane_step), label.shape[0])
    for z in np.unique(of_plane).tolist():
        runs = slice(begins[z], begins[z + 1])
        away = np.ones(label.shape[1:], bool)
        away.reshape(-1)[run_pixels(starts[runs] - z * size, lengths[runs])] = False
        squared = np.square(distance_transform_edt(away))
        for other in range(max(0, z - reach), min(label.shape[0], z + reach + 1)):
            # Squared distances within a plane are whole numbers: the margin only absorbs rounding.
            left = distance * distance - (plane_step * (other - z)) ** 2 + 1e-6
            sparse[other][(squared <= left) & (label[other] == 0)] = 0


def run_pixels(starts: Indices, lengths: Indices) -> Indices:
    """Return the flat indices of all pixels of the given runs, in order."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if ends.size else 0
    pixels: Indices = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return pixels


def _near_runs(starts: Indices, lengths: Indices, shape: tuple[int, ...], distance: int) -> Mask:
    """Find the pixels within `distance` (Euclidean) of a run's pixel, in time linear in the image's pixels.

    Few runs grow row by row, many by a distance transform of the whole image.
    """
    if starts.size * (2 * distance + 1) <= shape[0] * shape[1] * GROW_SHARE:
        return _grow_runs(starts, lengths, shape, distance, slice(0, shape[0]))
    away = np.ones(shape, bool)
    away.reshape(-1)[run_pixels(starts, lengths)] = False
    if away.all():
        return np.zeros(shape, bool)
    # Squared distances are integers: their float64 root is at most `distance` exactly when they are at most its square.
    near: Mask = distance_transform_edt(away) <= distance
    return near


def _grow_runs(starts: Indices, lengths: Indices, shape: tuple[int, ...], distance: int, band: slice) -> Mask:
    """Find the pixels of some rows within `distance` of a run.

    dy rows away it reaches floor(sqrt(distance^2 - dy^2)) further out.

    Every grown row adds 1 where it begins and takes 1 off where it ends: the running sum along the rows is positive
    inside.
    """
    width, height = shape[1], band.stop - band.start
    dy = np.arange(-distance, distance + 1)
    reach = np.array([math.isqrt(distance * distance - d * d) for d in dy.tolist()])
    y, x = np.divmod(starts, width)
    rows = (y[:, None] + dy).reshape(-1) - band.start
    left = np.maximum(x[:, None] - reach, 0).reshape(-1)
    right = np.minimum((x + lengths)[:, None] + reach, width).reshape(-1)
    inside = (rows >= 0) & (rows < height)
    rows, left, right = rows[inside] * (width + 1), left[inside], right[inside]
    steps = np.zeros((height, width + 1), np.int32)
    one = np.ones(rows.size, np.int32)  # an array: with a plain 1, `at` takes its slow path
    np.add.at(steps.reshape(-1), rows + left, one)
    np.subtract.at(steps.reshape(-1), rows + right, one)
    grown: Mask = np.cumsum(steps, axis=1, out=steps)[:, :width] > 0
    return grown
