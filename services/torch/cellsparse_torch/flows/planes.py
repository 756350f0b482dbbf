"""From the cells of planes to the cells of a stack."""

from collections.abc import Iterable

import numpy as np

from cellsparse_common.imaging.types import Labels


def join_planes(planes: Iterable[Labels], shape: tuple[int, ...], threshold: float) -> Labels:
    """Make cells of neighbouring planes one cell where they overlap enough.

    As `cellpose.utils.stitch3D`: a cell continues the cell of the previous plane with which it has the largest
    intersection over union, unless another cell of its plane has a larger one with that cell. There are three
    differences. Ties go to the smaller number, so two cells of a plane never become one. Numbers are not used again
    after planes without a cell. Memory is linear in pixels rather than in pairs of cells.

    Args:
        planes: Label images of axes YX, 0 background, 1 to n cells, in their order.
        shape: Shape of the stack, (planes, height, width).
        threshold: Smallest intersection over union of cells that are joined, above 0 to 1.

    Returns:
        Label image of axes ZYX: 0 background, 1 to n the cells.
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


def _continued(plane: Labels, before: Labels, threshold: float) -> Labels:
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
