"""Cells of a label image as runs: one pass over the pixels, then everything else on a few numbers per row of a cell.

Stacks take the same way: their runs lie along the rows of all planes, so a cell is one cell in all its planes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.disk_array import in_bands, release
from cellsparse_common.imaging.types import Indices, Mask

RUNS_AT_ONCE = 2**18
"""Runs whose positions in space are in memory together."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The cells of one label image and the runs (pieces of rows) they are made of.

    Attributes:
        label: The label image, integer YX or ZYX: below 0 not labelled, 0 background, n > 0 cell n.
        numbers: The cells' labels, int64, ascending.
        sizes: Pixels of each cell, int64.
        means: Mean over each cell of the channel mean, float64, in the image's intensity units.
        candidate: True for cells that may be kept: those whose pixels do not all lie on one line (2D) or in one plane
            (stacks).
        run_starts: First pixel of each run of cell pixels, index into the flattened label image, ascending.
        run_lengths: Pixels of each run.
        run_cells: Index of each run's cell in `numbers`.
    """

    label: npt.NDArray[np.integer[Any]]
    numbers: Indices
    sizes: Indices
    means: npt.NDArray[np.float64]
    candidate: Mask
    run_starts: Indices
    run_lengths: Indices
    run_cells: Indices


def measure_cells(image: npt.NDArray[np.generic], label: npt.NDArray[np.integer[Any]]) -> Cells:
    """Find and measure the cells of a label image, in time linear in its pixels.

    Sums of integer images are exact integers, so that equal means are equal floats and tie.

    Args:
        image: Intensities, YX or YXC, or ZYX or ZYXC for a stack, real numbers; channels count equally.
        label: Integer YX or ZYX, the image's size: below 0 not labelled, 0 background, n > 0 cell n.

    Returns:
        The measured cells.

    Raises:
        ValueError: The image is no plane or stack with optional channels, the sizes differ or an intensity inside a
            cell is NaN or infinite.
    """
    if label.ndim not in (2, 3) or image.ndim - label.ndim not in (0, 1) or image.shape[: label.ndim] != label.shape:
        raise ValueError(f"an image of shape {image.shape} and a label image of shape {label.shape} do not match")
    starts, lengths, values = _runs(label)
    channels = image.shape[-1] if image.ndim > label.ndim else 1
    sums = _run_sums(image, starts, channels)
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
    spread = _spread if label.ndim == 2 else _spread_in_space
    return Cells(
        label=label,
        numbers=numbers,
        sizes=sizes,
        means=np.asarray(totals / (sizes * channels), np.float64),
        candidate=spread(starts, lengths, run_cells, numbers.size, label.shape),
        run_starts=starts,
        run_lengths=lengths,
        run_cells=run_cells,
    )


def _runs(label: npt.NDArray[np.integer[Any]]) -> tuple[Indices, Indices, Indices]:
    """Return starts, lengths and values of all runs of equal labels along the rows, in raster order."""
    found, values, done = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for rows in in_bands(label):
        begins = np.ones(rows.shape, bool)
        np.not_equal(rows[..., 1:], rows[..., :-1], out=begins[..., 1:])
        of_rows = np.flatnonzero(begins)
        found.append(of_rows + done)
        values.append(rows.reshape(-1)[of_rows].astype(np.int64))
        done += rows.size
    starts = np.concatenate(found)
    return starts, np.diff(starts, append=label.size), np.concatenate(values)


def _run_sums(
    image: npt.NDArray[np.generic], starts: Indices, channels: int
) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """Return the sum of all channels over each run: int64 for integer images of up to 32 bits, else float64."""
    if starts.size == 0:
        return np.zeros(0, np.int64)
    whole = image.dtype.kind in "bui" and image.dtype.itemsize <= 4
    flat = image.reshape(-1)
    sums: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    sums = np.empty(starts.size, np.int64) if whole else np.empty(starts.size, np.float64)
    for first in range(0, starts.size, RUNS_AT_ONCE):
        last = min(first + RUNS_AT_ONCE, starts.size)
        begin, end = starts[first], starts[last] if last < starts.size else flat.size // channels
        part = flat[begin * channels : end * channels]
        sums[first:last] = np.add.reduceat(part, (starts[first:last] - begin) * channels, dtype=sums.dtype)
        release(image)
    return sums


def _compact(values: Indices, pixels: int) -> tuple[Indices, Indices]:
    """Return the distinct positive values, ascending, and the index of each value among them.

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


def _spread(starts: Indices, lengths: Indices, run_cells: Indices, cells: int, shape: tuple[int, ...]) -> Mask:
    """Find out which cells have pixels off the line through their first and their last pixel: exact, in integers.

    This is "minor axis length above zero" without its rounding: for a line, floating-point moments give 0 or 1e-6. The
    products are at most height x width, so int64 never overflows. A run lies on a line if both its ends do.
    """
    y, x = np.divmod(starts, shape[1])
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


def _spread_in_space(starts: Indices, lengths: Indices, run_cells: Indices, cells: int, shape: tuple[int, ...]) -> Mask:
    """Find out which cells have pixels off every plane: exact, in integers.

    As in 2D this is "minor axis length above zero", which in 3D is 2 sqrt(5) times the root of the smallest variance
    along any direction (skimage.measure.regionprops): a cell that lies in one plane, however turned, has no volume to
    speak of, and no ellipsoid or star can be fitted to it. The products are at most a few times the stack's voxels.
    """
    ends = starts + lengths - 1
    first, last = np.empty(cells, np.int64), np.empty(cells, np.int64)
    first[run_cells[::-1]] = starts[::-1]  # of repeated indices the last assignment stays
    last[run_cells] = ends
    origin = np.stack(np.unravel_index(first, shape), axis=-1)
    line = np.stack(np.unravel_index(last, shape), axis=-1) - origin
    normals = np.zeros((cells, 3), np.int64)
    for owner, position in _seen_from(origin, starts, ends, run_cells, shape):
        normal = np.cross(line[owner], position)
        off_line = np.flatnonzero(normal.any(axis=1))
        normals[owner[off_line]] = normal[off_line]  # any one of them spans the cell's plane, if it has one
    spread = np.zeros(cells, bool)
    for owner, position in _seen_from(origin, starts, ends, run_cells, shape):
        spread[owner[(position * normals[owner]).sum(axis=1) != 0]] = True
    return spread


def _seen_from(
    origin: Indices, starts: Indices, ends: Indices, run_cells: Indices, shape: tuple[int, ...]
) -> Iterator[tuple[Indices, Indices]]:
    """Yield cells and positions (z, y, x) of both ends of their runs from their first pixel, a part at a time.

    A run lies in a plane if both its ends do.
    """
    for begin in range(0, starts.size, RUNS_AT_ONCE):
        part = slice(begin, begin + RUNS_AT_ONCE)
        for pixels in (starts[part], ends[part]):
            yield run_cells[part], np.stack(np.unravel_index(pixels, shape), axis=-1) - origin[run_cells[part]]
