"""Which pixels a drawn outline encloses, within a budget of work that one file may cause.

Coordinates are x, y in pixels with the corner of the first pixel at 0, 0, as in ImageJ and QuPath: the pixel in
column x and row y is inside when its centre (x + 0.5, y + 0.5) is.

This module and `outlines` are our own code because of weight: `rasterio.features` has the same rules for pixels, but
its wheels hold GDAL, and an image may add at most 150 MB to its base and framework. scikit-image and OpenCV are not
exact. Ours also limits the work that one file may cause.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import ResourceExhausted
from cellsparse_common.imaging.shapes import Polygon
from cellsparse_common.imaging.types import Mask

Box = tuple[slice, slice]
"""Rows and columns of an image."""

_MAX_WORK = 32
"""Largest total area of the shapes' bounding boxes, in areas of the image."""
_MAX_CROSSINGS = 50_000_000
"""Most rows that all edges together may cross."""
_CHUNK = 1_000_000


@dataclass(kw_only=True)
class Budget:
    """Work that one file may still cause."""

    area: int
    field: str
    crossings: int = _MAX_CROSSINGS

    @classmethod
    def of(cls, size: tuple[int, int], field: str) -> "Budget":
        """Return the budget of a file for an image of (height, width)."""
        return cls(area=_MAX_WORK * max(size[0] * size[1], _CHUNK), field=field)

    def spend(self, *, area: int = 0, crossings: int = 0) -> None:
        """Take work off.

        Raises:
            ResourceExhausted: Nothing is left.
        """
        self.area -= area
        self.crossings -= crossings
        if self.area < 0 or self.crossings < 0:
            raise ResourceExhausted(
                f"The {self.field} has shapes that cover the image more than {_MAX_WORK} times or cross more than "
                f"{_MAX_CROSSINGS:,} rows of pixels; simplify the outlines.",
                self.field,
            )


def box_of(polygon: Polygon, shape: tuple[int, int]) -> Box | None:
    """Return the rows and columns of the image that a polygon may touch, None if there are none."""
    outline = np.concatenate(list(polygon))
    low = np.clip(np.floor(outline.min(axis=0)), 0, (shape[1], shape[0])).astype(int)
    high = np.clip(np.ceil(outline.max(axis=0)), 0, (shape[1], shape[0])).astype(int)
    if (high <= low).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def fill(polygon: Polygon, box: Box, budget: Budget) -> Mask:
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
