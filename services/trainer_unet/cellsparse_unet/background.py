"""Likely background between the labelled cells, so that a network is not left to guess there.

Sparse background labels lie close to cells. A network that never sees more answers at random far from them, and finds
cells in the noise. Where labelled cells and labelled background differ in brightness, unlabelled pixels that are even
further from the cells' brightness than the labelled background is are background in all likelihood.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SIGMA = 2.0  # pixels; evens out noise and keeps cells apart
CELL_SHARE = 10.0  # percent of the labelled cells' pixels that may be as dark as the background found


def likely_background(image: npt.NDArray[np.float32], label: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Finds unlabelled pixels that are background in all likelihood.

    Works for bright cells on dark ground and the other way round. Nothing is found where brightness does not tell
    labelled cells from labelled background, or where one of the two is missing.

    Args:
        image: Axes YX.
        label: Label image, axes YX: -1 not labelled, 0 background, n > 0 cell n.

    Returns:
        Mask, axes YX.
    """
    smooth = ndimage.gaussian_filter(image, SIGMA)
    cells, background = smooth[label > 0], smooth[label == 0]
    if not cells.size or not background.size:
        return np.zeros(label.shape, bool)
    limit = np.median(background)
    sign = 1.0 if np.median(cells) >= limit else -1.0
    if sign * limit >= np.percentile(sign * cells, CELL_SHARE):
        return np.zeros(label.shape, bool)
    found: npt.NDArray[np.bool_] = (sign * smooth <= sign * limit) & (label < 0)
    return found
