"""All cells of an image at once, from the pixels alone."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.classical.basins import basins
from cellsparse_common.imaging.classical.diameter import estimate_diameter, otsu
from cellsparse_common.imaging.classical.pixels import finite, smooth


def segment_all(
    image: npt.NDArray[Any], *, diameter: float | None = None, min_pixels: int | None = None
) -> npt.NDArray[np.int32]:
    """Return a label image (int32 YX): 0 background, 1 ... n cells in the order of their first pixel.

    The foreground is above Otsu's threshold or above its neighbourhood; it is split by the watershed of the
    smoothed distance map.

    Args:
        image: YX or YXC; cells may be bright or dark.
        diameter: Typical diameter of a cell in pixels; None: estimated from the image.
        min_pixels: Smaller cells are left out; None: a tenth of a typical cell.

    Raises:
        ValueError: The image has no pixel or other axes.
    """
    plane = finite(image).mean(2, dtype=np.float32)
    if plane.max() <= plane.min():
        return np.zeros(plane.shape, np.int32)
    size = max(2.0, diameter or estimate_diameter(image))
    if plane.mean() < np.median(plane):
        plane = -plane
    blurred = smooth(plane, max(0.6, 0.05 * size))
    level = otsu(blurred)
    background = float(np.median(blurred[blurred <= level]))
    local = smooth(plane, 1.5 * size)
    foreground = (blurred > (level + background) / 2) & (blurred > local)
    foreground = ndimage.binary_fill_holes(ndimage.binary_opening(foreground))
    distance = ndimage.distance_transform_edt(np.pad(foreground, 1))[1:-1, 1:-1]
    deep = smooth(distance, max(0.7, 0.08 * size))
    labels = np.where(foreground, basins(deep) + 1, 0)
    least = max(1, round(0.1 * np.pi * (size / 2) ** 2)) if min_pixels is None else min_pixels
    return _numbered(labels, least)


def _numbered(labels: npt.NDArray[Any], least: int) -> npt.NDArray[np.int32]:
    numbers, first, counts = np.unique(labels, return_index=True, return_counts=True)
    kept = [
        (place, number)
        for number, place, count in zip(numbers, first, counts, strict=True)
        if number and count >= least
    ]
    table = np.zeros(int(numbers.max()) + 1, np.int32)
    for index, (_, number) in enumerate(sorted(kept), start=1):
        table[number] = index
    result: npt.NDArray[np.int32] = table[labels]
    return result
