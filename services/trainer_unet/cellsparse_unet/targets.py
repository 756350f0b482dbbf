"""Three-class targets from sparse labels: what the network learns to say about each pixel."""

import numpy as np
import numpy.typing as npt

from cellsparse_unet.ellipses import cell_moments, draw

IGNORED, BACKGROUND, OUTER, CENTRE, LIKELY_BACKGROUND = -1, 0, 1, 2, 3


def three_classes(label: npt.NDArray[np.int32], centre_scale: float) -> npt.NDArray[np.int8]:
    """Draws labelled cells as ellipses with smaller ellipses as centres.

    The ellipse of a cell may reach over unlabelled pixels, which become labelled, never over labelled background or
    another labelled cell. A cell's own pixels outside its ellipse are outer: they were marked as cell.

    Args:
        label: Label image, axes YX: -1 not labelled, 0 background, n > 0 cell n; not changed.
        centre_scale: Size of the centre ellipse relative to the cell's, above 0, below 1.

    Returns:
        Class of each pixel, axes YX: -1 not labelled, 0 background, 1 outer, 2 centre. The centre's rim is outer, but
        every cell keeps at least one centre pixel if its centroid lies on a pixel it may draw on.
    """
    shape = (label.shape[0], label.shape[1])
    moments = cell_moments(label)
    owner, radius = draw(moments, shape, label)
    centre = np.where(radius <= centre_scale, owner, 0)
    inner = centre * ~_rim(centre)
    middle = np.clip(np.rint(moments.centre).astype(int), 0, np.array(shape) - 1)
    ys, xs = middle[:, 0], middle[:, 1]
    own = owner[ys, xs] == moments.ids
    inner[ys[own], xs[own]] = moments.ids[own]
    classes = np.full(shape, IGNORED, np.int8)
    classes[label == 0] = BACKGROUND
    classes[(owner > 0) | (label > 0)] = OUTER
    classes[inner > 0] = CENTRE
    return classes


def _rim(region: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Pixels that have one of four neighbours in another region; the image border is no neighbour."""
    rim = np.zeros(region.shape, bool)
    down = region[1:] != region[:-1]
    right = region[:, 1:] != region[:, :-1]
    rim[1:] |= down
    rim[:-1] |= down
    rim[:, 1:] |= right
    rim[:, :-1] |= right
    return rim
