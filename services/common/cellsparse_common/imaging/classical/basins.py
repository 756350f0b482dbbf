"""The watershed of hills: every pixel belongs to the peak that steepest ascent from it reaches."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import GrayImage


def basins(heights: GrayImage) -> npt.NDArray[np.int64]:
    """Return for each pixel (YX) the flat index of the peak that steepest ascent reaches.

    A plateau has one peak: of neighbours of equal height the one with the greatest flat index counts as higher.
    """
    height, width = heights.shape
    padded = np.full((height + 2, width + 2), -np.inf, np.float32)
    padded[1:-1, 1:-1] = heights
    best = padded[1:-1, 1:-1].copy()
    target = np.arange(height * width, dtype=np.int64).reshape(height, width)
    indices = np.full((height + 2, width + 2), -1, np.int64)
    indices[1:-1, 1:-1] = target
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            rows, columns = slice(1 + dy, 1 + dy + height), slice(1 + dx, 1 + dx + width)
            value, place = padded[rows, columns], indices[rows, columns]
            better = (value > best) | ((value == best) & (place > target))
            np.copyto(best, value, where=better)
            np.copyto(target, place, where=better)
    pointers: npt.NDArray[Any] = target.ravel()
    while True:
        further = pointers[pointers]
        if np.array_equal(further, pointers):
            return pointers.reshape(height, width)
        pointers = further
