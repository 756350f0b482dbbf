"""Cells of a label image as runs: one pass over the pixels, then everything else on a few numbers per row of a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The cells of one label image and the runs (pieces of rows) they are made of.

    Attributes:
        label: the label image, integer YX: below 0 not labelled, 0 background, n > 0 cell n.
        numbers: the cells' labels, int64, ascending.
        sizes: pixels of each cell, int64.
        means: mean over each cell of the channel mean, float64, in the image's intensity units.
        candidate: True for cells that may be kept: those whose pixels do not all lie on one line.
        run_starts: first pixel of each run of cell pixels, index into the flattened label image, ascending.
        run_lengths: pixels of each run.
        run_cells: index of each run's cell in `numbers`.
    """

    label: NDArray[np.integer[Any]]
    numbers: IntArray
    sizes: IntArray
    means: NDArray[np.float64]
    candidate: NDArray[np.bool_]
    run_starts: IntArray
    run_lengths: IntArray
    run_cells: IntArray


def measure_cells(image: NDArray[np.generic], label: NDArray[np.integer[Any]]) -> Cells:
    """Finds and measures the cells of a label image, in time linear in its pixels.

    Sums of integer images are exact integers, so that equal means are equal floats and tie.

    Args:
        image: intensities, YX or YXC, real numbers; channels count equally.
        label: integer YX, the image's height and width: below 0 not labelled, 0 background, n > 0 cell n.

    Returns:
        The measured cells.

    Raises:
        ValueError: the image is not 2D with optional channels, the sizes differ or an intensity inside a cell is NaN or
            infinite.
    """
    if label.ndim != 2 or image.ndim not in (2, 3) or image.shape[:2] != label.shape:
        raise ValueError(f"an image of shape {image.shape} and a label image of shape {label.shape} do not match")
    starts, lengths, values = _runs(label)
    sums = _run_sums(image, starts)
    of_cells = values > 0
    starts, lengths, values, sums = starts[of_cells], lengths[of_cells], values[of_cells], sums[of_cells]

    numbers, run_cells = _compact(values, label.size)
    sizes = np.zeros(numbers.size, np.int64)
    np.add.at(sizes, run_cells, lengths)
    totals = np.zeros(numbers.size, sums.dtype)
    np.add.at(totals, run_cells, sums)
    if not np.isfinite(totals).all():
        bad = int(numbers[np.flatnonzero(~np.isfinite(totals))[0]])
        raise ValueError(f"the image holds NaN or infinite intensities in cell {bad}; replace them by numbers")
    channels = image.shape[2] if image.ndim == 3 else 1
    return Cells(
        label=label,
        numbers=numbers,
        sizes=sizes,
        means=np.asarray(totals / (sizes * channels), np.float64),
        candidate=_spread(starts, lengths, run_cells, numbers.size, label.shape[1]),
        run_starts=starts,
        run_lengths=lengths,
        run_cells=run_cells,
    )


def _runs(label: NDArray[np.integer[Any]]) -> tuple[IntArray, IntArray, IntArray]:
    """Starts, lengths and values of all runs of equal labels along the rows, in raster order."""
    begins = np.ones(label.shape, bool)
    np.not_equal(label[:, 1:], label[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    return starts, np.diff(starts, append=label.size), label.reshape(-1)[starts].astype(np.int64)


def _run_sums(image: NDArray[np.generic], starts: IntArray) -> NDArray[np.int64] | NDArray[np.float64]:
    """Sum of all channels over each run of the flattened image: int64 up to 32 bit integers, else float64."""
    if starts.size == 0:
        return np.zeros(0, np.int64)
    channels = image.shape[2] if image.ndim == 3 else 1
    whole = image.dtype.kind in "bui" and image.dtype.itemsize <= 4
    flat = image.reshape(-1)
    return np.add.reduceat(flat, starts * channels, dtype=np.int64 if whole else np.float64)


def _compact(values: IntArray, pixels: int) -> tuple[IntArray, IntArray]:
    """The distinct positive values, ascending, and the index of each value among them.

    A look-up table is linear in time, but a label of 2**31 - 1 must not cost 16 GiB: beyond the image's size, sort.
    """
    if values.size == 0:
        return values, values
    largest = int(values.max())
    if largest > pixels:
        numbers, cells = np.unique(values, return_inverse=True)
        return numbers, cells.astype(np.int64)
    table = np.zeros(largest + 1, np.int64)
    table[values] = 1
    numbers = np.flatnonzero(table)
    table[numbers] = np.arange(numbers.size)
    return numbers, table[values]


def _spread(starts: IntArray, lengths: IntArray, run_cells: IntArray, cells: int, width: int) -> NDArray[np.bool_]:
    """Which cells have pixels off the line through their first and their last pixel: exact, in integers.

    This is "minor axis length above zero" without its rounding: for a line, floating-point moments give 0 or 1e-6. The
    products are at most height x width, so int64 never overflows. A run lies on a line if both its ends do.
    """
    y, x = np.divmod(starts, width)
    end = x + lengths - 1
    first, last = np.empty(cells, np.int64), np.empty(cells, np.int64)
    first[run_cells[::-1]] = np.arange(starts.size)[::-1]  # of repeated indices the last assignment stays
    last[run_cells] = np.arange(starts.size)
    y0, x0 = y[first][run_cells], x[first][run_cells]
    dy, dx = (y[last] - y[first])[run_cells], (end[last] - x[first])[run_cells]
    off = ((y - y0) * dx != (x - x0) * dy) | ((y - y0) * dx != (end - x0) * dy)
    spread = np.zeros(cells, bool)
    spread[run_cells[off]] = True
    return spread
