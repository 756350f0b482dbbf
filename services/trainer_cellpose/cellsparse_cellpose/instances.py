"""Cells of a stack from the cells of its planes."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def join_planes(planes: Iterable[NDArray[np.int32]], shape: tuple[int, ...], threshold: float) -> NDArray[np.int32]:
    """Make cells of neighbouring planes one cell where they overlap enough.

    As `cellpose.utils.stitch3D`: a cell of a plane goes on with the cell of the plane before with which it shares most,
    measured as intersection over union, unless another cell of its plane shares more with that one. Here equal shares
    go to the smaller number, so two cells of a plane never become one; numbers are never used again after planes
    without a cell; and memory is linear in pixels rather than in pairs of cells.

    Args:
        planes: Label images of axes YX, 0 background, 1 to n cells, in their order.
        shape: Of the stack, (planes, height, width).
        threshold: Smallest intersection over union of what is joined, above 0 to 1.

    Returns:
        int32, axes ZYX: 0 background, 1 to n the cells.
    """
    stack = np.zeros(shape, np.int32)
    cells = 0
    for z, plane in enumerate(planes):
        numbers = _continued(plane, stack[z - 1], threshold) if z else np.zeros(int(plane.max(initial=0)) + 1, np.int32)
        new = np.flatnonzero(numbers[1:] == 0) + 1
        numbers[new] = np.arange(cells + 1, cells + 1 + len(new))
        cells += len(new)
        stack[z] = numbers[plane]
    return stack


def _continued(plane: NDArray[np.int32], before: NDArray[np.int32], threshold: float) -> NDArray[np.int32]:
    """Return for each cell of a plane the number of the cell before that it continues, 0 for none (and for 0)."""
    own = np.bincount(plane.ravel())
    known, at = np.unique(before, return_inverse=True)  # the stack's numbers grow with it; those of a plane are few
    at = at.reshape(plane.shape)
    sizes = np.bincount(at.ravel())
    both = (plane > 0) & (before > 0)
    pairs, shared = np.unique(plane[both].astype(np.int64) * len(known) + at[both], return_counts=True)
    cell, earlier = np.divmod(pairs, len(known))
    iou = shared / (own[cell] + sizes[earlier] - shared)
    numbers = np.zeros(len(own), np.int32)
    taken = np.zeros(len(known), bool)
    # Best first. Each earlier cell goes to the cell that shares most with it, and to no other.
    for pair in np.lexsort((earlier, cell, -iou)):
        if iou[pair] < threshold:
            break
        if not taken[earlier[pair]]:
            taken[earlier[pair]] = True
            if not numbers[cell[pair]]:
                numbers[cell[pair]] = known[earlier[pair]]
    return numbers
