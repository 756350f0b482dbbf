"""Turning drawn shapes into label images.

Coordinates are x, y in pixels with the corner of the first pixel at 0, 0, as in ImageJ and QuPath: the pixel in
column x and row y is inside when its centre (x + 0.5, y + 0.5) is.

This module and `outlines` are our own code because of weight: `rasterio.features` has the same rules for pixels, but
its wheels hold GDAL, and an image may add at most 150 MB to its base and framework. scikit-image and OpenCV are not
exact. Ours also limits the work that one file may cause.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.types import Labels, Mask

Ring = npt.NDArray[np.float64]
"""A closed line: rows of x, y, at least 3 of them; the last one is joined to the first."""

MAX_VERTICES = 2_000_000
"""Most vertices of all shapes of a file."""

_MAX_WORK = 32
"""Largest total area of the shapes' bounding boxes, in areas of the image."""
_MAX_CROSSINGS = 50_000_000
"""Most rows that all edges together may cross."""
_CHUNK = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One annotation."""

    name: str
    """Its name in messages."""
    background: bool
    """Whether it marks background rather than a cell."""
    polygons: Sequence[Sequence[Ring]]
    """Its parts; of each the outline and the holes (even-odd rule)."""


def paint(shapes: Iterable[Shape], shape: tuple[int, int], field: str) -> Labels:
    """Draw shapes into a label image.

    Cells are numbered 1, 2, ... in their order. A pixel in several cells belongs to the first of them, a pixel in a
    cell and in background to the cell. Parts outside the image are cut off.

    Args:
        shapes: What to draw.
        shape: (height, width) of the image.
        field: Name of the request's field, for messages.

    Returns:
        int32, axes YX: -1 where nothing is drawn, 0 background, n > 0 cell n.

    Raises:
        InvalidArgument: A shape lies outside the image, or no pixel is left for it.
        ResourceExhausted: The shapes are too many or too large together.
    """
    label = np.full(shape, -1, np.int32)
    budget = _Budget(area=_MAX_WORK * max(shape[0] * shape[1], _CHUNK), field=field)
    cells = 0
    for each in shapes:
        value = 0 if each.background else cells + 1
        drawn = False
        for polygon in each.polygons:
            box = _box(polygon, shape)
            if box is None:
                continue
            inside = _fill(polygon, box, budget)
            target = label[box]
            free = inside & ((target < 0) if each.background else (target <= 0) | (target == value))
            target[free] = value
            drawn = drawn or bool(inside.any() if each.background else free.any())
        if not drawn:
            raise InvalidArgument(_why_nothing(each, shape, field), field)
        cells = max(cells, value)
    return label


@dataclass(kw_only=True)
class _Budget:
    """Work that one file may still cause."""

    area: int
    field: str
    crossings: int = _MAX_CROSSINGS

    def spend(self, *, area: int = 0, crossings: int = 0) -> None:
        self.area -= area
        self.crossings -= crossings
        if self.area < 0 or self.crossings < 0:
            raise ResourceExhausted(
                f"The {self.field} has shapes that cover the image more than {_MAX_WORK} times or cross more than "
                f"{_MAX_CROSSINGS:,} rows of pixels; simplify the outlines.",
                self.field,
            )


def _box(polygon: Sequence[Ring], shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Return the rows and columns of the image that a polygon may touch, None if there are none."""
    outline = np.concatenate(list(polygon))
    low = np.clip(np.floor(outline.min(axis=0)), 0, (shape[1], shape[0])).astype(int)
    high = np.clip(np.ceil(outline.max(axis=0)), 0, (shape[1], shape[0])).astype(int)
    if (high <= low).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def _fill(polygon: Sequence[Ring], box: tuple[slice, slice], budget: _Budget) -> Mask:
    """Return which pixel centres of a box are inside, by the even-odd rule.

    Every edge flips, in each row whose centre line it crosses, all pixels to the right of the crossing.
    """
    top, left = box[0].start, box[1].start
    height, width = box[0].stop - top, box[1].stop - left
    budget.spend(area=height * width)
    flips = np.zeros(height * (width + 1), np.int64)
    for ring in polygon:
        start, end = ring, np.roll(ring, -1, axis=0)
        upper = np.where((start[:, 1] <= end[:, 1])[:, None], start, end)
        lower = np.where((start[:, 1] <= end[:, 1])[:, None], end, start)
        # Row y is crossed when upper <= y + 0.5 < lower: half open, so that a vertex on the line counts once.
        first = np.clip(np.ceil(upper[:, 1] - 0.5), top, top + height).astype(np.int64)
        count = np.clip(np.ceil(lower[:, 1] - 0.5), top, top + height).astype(np.int64) - first
        budget.spend(crossings=int(count.sum()))
        for edges in _chunks(count):
            row = np.arange(count[edges].sum()) + np.repeat(
                first[edges] - (np.cumsum(count[edges]) - count[edges]), count[edges]
            )
            a, b = (np.repeat(line[edges], count[edges], axis=0) for line in (upper, lower))
            x = a[:, 0] + (row + 0.5 - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
            column = np.clip(np.ceil(x - 0.5) - left, 0, width).astype(np.int64)
            flips += np.bincount((row - top) * (width + 1) + column, minlength=flips.size)
    crossed = np.cumsum(flips.reshape(height, width + 1), axis=1)[:, :width]
    return np.asarray(crossed & 1, dtype=bool)


def _chunks(count: npt.NDArray[np.int64]) -> list[slice]:
    """Split edges so that each part crosses about `_CHUNK` rows, or is one edge."""
    part = np.cumsum(count) // _CHUNK
    cuts = np.flatnonzero(np.diff(part)) + 1
    bounds = [0, *cuts.tolist(), len(count)]
    return [slice(a, b) for a, b in pairwise(bounds)]


def _why_nothing(each: Shape, shape: tuple[int, int], field: str) -> str:
    """Return the sentence for a shape that left no pixel."""
    size = f"{shape[0]} x {shape[1]} pixels"
    if all(_box(polygon, shape) is None for polygon in each.polygons):
        points = np.concatenate([ring for polygon in each.polygons for ring in polygon])
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return (
            f"In the {field}, {each.name} lies outside the image of {size}: it spans x {x0:g} to {x1:g}, "
            f"y {y0:g} to {y1:g}; coordinates must be pixels of this image."
        )
    return f"In the {field}, {each.name} covers no pixel, or only pixels of cells before it; remove or enlarge it."
