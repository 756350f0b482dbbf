"""From the network's output to cells, and from the cells of planes to the cells of a stack."""

from collections.abc import Iterable

import fastremap
import numpy as np
import numpy.typing as npt
import torch
from cellpose import dynamics, utils

from cellsparse_cellpose.config import Config
from cellsparse_common.imaging.labels import without_small
from cellsparse_common.imaging.types import Labels


def find_cells(output: npt.NDArray[np.float32], config: Config, scale: float, device: torch.device) -> Labels:
    """Follow the flows of an image to its cells, with Cellpose's own code.

    Args:
        output: Flows (y, x) times 5 and the logit of the cell probability, shape (3, Y, X).
        config: Thresholds.
        scale: Pixels that the network saw for each pixel of the image; smaller cells need fewer iterations.
        device: Where to compute.

    Returns:
        Label image, shape (Y, X): 0 background, 1 to n the cells of any size.
    """
    masks = dynamics.compute_masks(
        output[:2],
        output[2],
        niter=max(1, int(200 / scale)),
        cellprob_threshold=config.cellprob_threshold,
        flow_threshold=config.flow_threshold,
        device=device,
    )
    return tidy(masks)


def tidy(masks: npt.NDArray[np.generic], min_size: int = 0) -> Labels:
    """Fill holes and drop small cells.

    Stock Cellpose counts sizes by rank although labels have gaps after the flow check, so it may drop a neighbour of a
    small cell. Labels are therefore made consecutive first, and sizes are counted here.
    """
    masks, _ = fastremap.renumber(masks, in_place=False)
    filled: Labels = utils.fill_holes_and_remove_small_masks(masks, min_size=-1).astype(np.int32)
    return without_small(filled, min_size)


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
