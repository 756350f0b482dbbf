"""Three-class targets from sparse labels: background, and outer part and centre of cells."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.types import Labels, Mask
from cellsparse_trainer.data.background import pixel_grid
from cellsparse_unet.ellipses import cell_moments, draw

IGNORED, BACKGROUND, OUTER, CENTRE = -1, 0, 1, 2
"""Classes of pixels; the fifth, likely background, is `background.LIKELY` (-2)."""
TOUCHING = 3
"""Class of the outer pixels right beside another cell: outer ones that may weigh more."""
NOT_CENTRE = -3
"""Class of unlabelled pixels that may be background or the outer part of a cell, but no centre."""
TOUCH = 2
"""Pixels from another cell, along the axes and diagonals, that count as right beside it."""
THICK = 2.0
"""Distance of planes in pixels from which centres have no rim across them."""


def three_classes(label: Labels, centre_scale: float, plane_distance: float = 1.0) -> npt.NDArray[np.int8]:
    """Draw labelled cells as ellipses, in stacks ellipsoids, with smaller ones as centres.

    The ellipse of a cell may reach over unlabelled pixels, which become labelled, never over labelled background or
    another labelled cell. A cell's own pixels outside its ellipse are outer: they were marked as cell.

    Args:
        label: Label image, axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n; not changed.
        centre_scale: Size of the centre ellipse relative to the cell's, above 0, below 1.
        plane_distance: Distance of planes over the distance of pixels in a plane, above 0; stacks only.

    Returns:
        Class of each pixel, axes as the label's: -1 not labelled, 0 background, 1 outer, 2 centre. The centre's rim is
        outer, but every cell keeps at least one centre pixel if its centroid lies on a pixel it may draw on.
    """
    shape = label.shape
    moments = cell_moments(label)
    owner, radius = draw(moments, shape, label)
    centre = np.where(radius <= centre_scale, owner, 0)
    inner = centre * ~_rim(centre, rim_axes(label.ndim, plane_distance))
    middle = np.clip(np.rint(moments.centre).astype(int), 0, np.array(shape) - 1)
    own = owner[tuple(middle.T)] == moments.ids
    inner[tuple(middle[own].T)] = moments.ids[own]
    classes = np.full(shape, IGNORED, np.int8)
    classes[label == 0] = BACKGROUND
    classes[(owner > 0) | (label > 0)] = OUTER
    classes[inner > 0] = CENTRE
    return classes


def outline_classes(label: Labels, centre_scale: float, plane_distance: float = 1.0) -> npt.NDArray[np.int8]:
    """Keep labelled cells in their own shape; the centre is what lies deep inside.

    A pixel's depth is its distance to the nearest pixel of the image that is not the cell. Where the image cuts a cell
    off, the cut is no outline.

    Args:
        label: As for `three_classes`; not changed.
        centre_scale: Share of the cell's greatest depth, from inside, that is centre, above 0, below 1. Of an ellipse
            it is the size of the centre relative to the cell, as for `three_classes`.
        plane_distance: As for `three_classes`.

    Returns:
        As `three_classes`. A cell's outermost pixels are outer, but every cell keeps a centre pixel.
    """
    classes = np.full(label.shape, IGNORED, np.int8)
    classes[label == 0] = BACKGROUND
    ids = np.unique(label[label > 0])
    index = np.where(label > 0, np.searchsorted(ids, label) + 1, 0)
    grid = pixel_grid(label.ndim, plane_distance)
    for number, box in enumerate(ndimage.find_objects(index), 1):
        around = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        cell = index[around] == number
        # A cell that fills its image has no outline; all of it is centre.
        depth = np.ones(cell.shape) if cell.all() else ndimage.distance_transform_edt(cell, sampling=grid)
        deepest = depth.max()
        centre = (depth > max(1.0, (1 - centre_scale) * deepest)) | (depth == deepest)
        classes[around][cell] = np.where(centre[cell], CENTRE, OUTER)
    return classes


def mark_touching(classes: npt.NDArray[np.int8], label: Labels, neighbour: Mask) -> npt.NDArray[np.int8]:
    """Make outer pixels `TOUCHING` that lie within `TOUCH` steps of another cell.

    Args:
        classes: As `outline_classes` returns them; not changed.
        label: The label image that they were made of.
        neighbour: Unlabelled pixels that may be a cell that touches a labelled one.
    """
    known = np.where(neighbour, np.iinfo(np.int32).max, np.maximum(label, 0))
    highest = ndimage.maximum_filter(known, size=2 * TOUCH + 1)
    lowest = ndimage.minimum_filter(np.where(known > 0, known, np.iinfo(np.int32).max), size=2 * TOUCH + 1)
    return np.where((classes == OUTER) & (highest != lowest), TOUCHING, classes).astype(np.int8)


def rim_axes(dims: int, plane_distance: float) -> tuple[int, ...]:
    """Return the axes along which a centre has a rim: not across planes that are so far apart that one exceeds a rim.

    Args:
        dims: Number of axes of the image.
        plane_distance: Distance of planes over the distance of pixels in a plane; stacks only.
    """
    return tuple(range(dims)) if dims == 2 or plane_distance < THICK else tuple(range(1, dims))


def _rim(region: Labels, axes: tuple[int, ...]) -> Mask:
    """Find pixels with a neighbour along one of the axes in another region; the image border is no neighbour."""
    rim = np.zeros(region.shape, bool)
    for axis in axes:
        here, there = np.moveaxis(rim, axis, 0), np.moveaxis(region, axis, 0)
        step = there[1:] != there[:-1]
        here[1:] |= step
        here[:-1] |= step
    return rim
