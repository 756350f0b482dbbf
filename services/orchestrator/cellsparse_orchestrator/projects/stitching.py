"""Prediction of an image that is too large for one call: windows that overlap, whose cells are matched there."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cellsparse_common.imaging.types import Indices, Labels

WINDOW = 4096
"""Height and width of a window, pixels."""
OVERLAP = 256
"""Fewest pixels that neighbouring windows share; larger cells may be cut in two."""
_SAME = 0.5
"""Two cells are the same where their common pixels are more than this share of the smaller one in the overlap."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of an image."""

    rows: slice
    columns: slice
    above: int
    """How many of its rows the windows above have shown already."""
    before: int
    """How many of its columns the window to the left has shown already."""


def windows(height: int, width: int, size: int = WINDOW, overlap: int = OVERLAP) -> Iterator[Window]:
    """Yield windows that cover an image, row by row, each overlapping its neighbours."""
    upper = 0
    for top in _begins(height, size, overlap):
        earlier = 0
        for left in _begins(width, size, overlap):
            rows, columns = slice(top, min(top + size, height)), slice(left, min(left + size, width))
            yield Window(rows=rows, columns=columns, above=max(upper - top, 0), before=max(earlier - left, 0))
            earlier = left + size
        upper = top + size


def _begins(length: int, size: int, overlap: int) -> list[int]:
    """Return where windows begin; the last one ends at the end."""
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    return [round(index * (length - size) / (count - 1)) for index in range(count)]


def stitch(whole: Labels, part: Labels, window: Window, known: int) -> Indices:
    """Add the cells of a window to the whole image.

    A cell that is there already, as far as both windows show it, keeps its number and gets the pixels that this window
    adds. What is there is never overwritten.

    Args:
        whole: The whole image so far: 0 nothing, n cell n. Changed in place.
        part: The window's cells, 1 to n.
        window: Where it is.
        known: Number of cells so far.

    Returns:
        The number in the whole image of each cell of the window; of cell 0, nothing, 0.
    """
    there = whole[window.rows, window.columns]
    count = int(part.max())
    overlap = np.zeros(part.shape, bool)
    overlap[: window.above] = overlap[:, : window.before] = True
    both = overlap & (there > 0) & (part > 0)
    numbers = np.zeros(count + 1, np.int64)
    if both.any():
        areas, areas_there = (np.bincount(labels[overlap]) for labels in (part, there))
        pairs, common = np.unique(np.stack([part[both], there[both]]), axis=1, return_counts=True)
        for index in np.argsort(common, kind="stable"):  # the largest common part comes last, and decides
            new, old = (int(value) for value in pairs[:, index])
            if common[index] > _SAME * min(areas[new], areas_there[old]):
                numbers[new] = old
    fresh = np.flatnonzero(numbers[1:] == 0) + 1
    numbers[fresh] = np.arange(known + 1, known + 1 + len(fresh))
    np.copyto(there, numbers[part].astype(np.int32), where=(there == 0) & (part > 0))
    return numbers
