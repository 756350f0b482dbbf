"""The typical diameter of cells in an image that has no annotation yet."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.classical.pixels import finite
from cellsparse_common.imaging.types import GrayImage, Mask

DEFAULT = 20.0
"""Diameter in pixels where an image shows no cells."""


def estimate_diameter(image: npt.NDArray[Any]) -> float:
    """Return the typical diameter of cells (pixels): the median over peaks of the distance map of the foreground.

    Args:
        image: YX or YXC; cells may be bright or dark.
    """
    plane = finite(image).mean(2, dtype=np.float32)
    if plane.mean() < np.median(plane):
        plane = -plane
    blurred = ndimage.gaussian_filter(plane, 1.0, mode="nearest")
    return diameter_of(blurred > otsu(blurred))


def diameter_of(foreground: Mask) -> float:
    """Return the typical diameter (pixels) of round parts of a mask; `DEFAULT` if it has none."""
    distance = ndimage.distance_transform_edt(np.pad(foreground, 1))[1:-1, 1:-1]
    blurred = ndimage.gaussian_filter(distance, 1.0)
    peaks = (blurred == ndimage.maximum_filter(blurred, 5)) & (distance >= 2)
    radii = distance[peaks]
    return float(np.clip(2.4 * np.median(radii), 6.0, max(6.0, max(foreground.shape)))) if radii.size else DEFAULT


def otsu(plane: GrayImage) -> float:
    """Return the threshold that separates two classes of values best (Otsu 1979), over 256 bins.

    Nothing is above it where all values are equal.
    """
    if plane.min() == plane.max():
        return float(plane.max())
    counts, edges = np.histogram(plane, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    sums = np.cumsum(counts * centres)
    above = counts.sum() - below
    between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(centres[int(between.argmax())])
