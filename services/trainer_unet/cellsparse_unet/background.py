"""Likely background beside and between the labelled cells, so that a network is not left to guess there.

Sparse background labels leave two gaps. A network that never sees ground far from cells answers at random there and
finds cells in the noise. And where no background is labelled right beside a cell, nothing says where the cell ends.
Both are closed by brightness: cells are labelled as a whole, so a pixel beside one belongs to the ground or to a
neighbour, and it is ground if it is further from the cell's brightness than the cell's own rim; and so is, anywhere,
what is further from the cells' brightness than half of the labelled background.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

NOISE = 1.0  # sigma in pixels; evens out noise beside cells and keeps their outlines
GRAIN = 2.0  # sigma in pixels; evens out noise between cells and keeps cells apart
RIM_PERCENTILE = 10.0  # of a cell's pixels, counted from the ground's side: as bright as its rim
REACH = 4.0  # pixels from a labelled cell that count as beside it


def likely_background(image: npt.NDArray[np.float32], label: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Finds unlabelled pixels that are background in all likelihood.

    Works for bright cells on dark ground and the other way round, with labelled background and without. Nothing is
    found where brightness does not tell labelled cells from their ground.

    Args:
        image: Axes YX.
        label: Label image, axes YX: -1 not labelled, 0 background, n > 0 cell n; not changed.

    Returns:
        Mask, axes YX.
    """
    none = np.zeros(label.shape, bool)
    if not (label > 0).any():
        return none
    distance, nearest = ndimage.distance_transform_edt(label <= 0, return_indices=True)
    beside = (label < 0) & (distance <= REACH)
    ground = label == 0 if (label == 0).any() else beside
    if not ground.any():
        return none
    sign = 1 if np.median(image[label > 0]) >= np.median(image[ground]) else -1
    fine, coarse = (ndimage.gaussian_filter(sign * image, sigma) for sigma in (NOISE, GRAIN))
    beside &= fine < _rims(fine, label)[tuple(nearest)]
    ground = label == 0 if (label == 0).any() else beside
    limit = np.median(coarse[ground]) if ground.any() else np.inf
    if limit >= np.percentile(coarse[label > 0], RIM_PERCENTILE):
        return none
    found: npt.NDArray[np.bool_] = beside | ((coarse <= limit) & (label < 0))
    return found


def _rims(bright: npt.NDArray[np.float32], label: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Each labelled cell's rim brightness, written on the cell's pixels; 0 elsewhere."""
    ids, index = np.unique(label, return_inverse=True)
    rims = ndimage.labeled_comprehension(
        bright, label, ids, lambda values: np.percentile(values, RIM_PERCENTILE), np.float32, 0
    )
    written: npt.NDArray[np.float32] = np.where(ids > 0, rims, 0).astype(np.float32)[index.reshape(label.shape)]
    return written
