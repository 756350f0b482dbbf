"""Grey values in which the cell under a click is bright."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.types import GrayImage


def finite(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return an image (YX or YXC) as YXC float32 without values that are not finite.

    Raises:
        ValueError: The image has other axes, or no pixel.
    """
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(
            f"an image of shape {image.shape} has no pixels to propose cells in; axes YX or YXC are allowed"
        )
    array = image.astype(np.float64).reshape(*image.shape[:2], -1)
    good = np.isfinite(array)
    if not good.all():
        array = np.where(good, array, np.median(array[good]) if good.any() else 0.0)
    # Scaling keeps differences exact enough in float32 whatever the offset, and any type's range comparable.
    low, high = array.min(), array.max()
    return ((array - low) / (high - low) if high > low else np.zeros_like(array)).astype(np.float32)


def bright_cells(image: npt.NDArray[np.float32], x: float, y: float, diameter: float) -> GrayImage:
    """Return the channel, or the mean of all, in which a click stands out most; negated where cells are dark.

    Args:
        image: YXC float32.
        x: Column of the click.
        y: Row of the click.
        diameter: Typical diameter of a cell in pixels.
    """
    planes = [image[..., channel] for channel in range(image.shape[2])]
    if len(planes) > 1:
        planes.append(image.mean(2, dtype=np.float32))
    strengths = [_contrast(plane, x, y, diameter) for plane in planes]
    # The mean is quieter than a channel, so that it wins unless a channel is clearly better.
    factors = [1.0] * image.shape[2] + [1.15] * (len(planes) - image.shape[2])
    chosen = max(range(len(planes)), key=lambda index: abs(strengths[index]) * factors[index])
    return planes[chosen] if strengths[chosen] >= 0 else -planes[chosen]


def _contrast(plane: GrayImage, x: float, y: float, diameter: float) -> float:
    """Return how much brighter a click is than what surrounds it, in the window's spread; negative: darker."""
    rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
    distance = np.hypot(rows + 0.5 - y, columns + 0.5 - x)
    near = plane[distance <= max(0.2 * diameter, distance.min())]
    around = plane[distance <= 1.5 * diameter]
    spread = float(around.std()) if around.size else 0.0
    if spread <= 0:
        return 0.0
    value = float(np.median(near))
    # Background is the more frequent side: a few cells make the mean lie on their side of the median.
    skew = float(plane.mean() - np.median(plane)) / spread
    return (value - float(np.median(around))) / spread + skew


def smooth(plane: GrayImage, sigma: float) -> GrayImage:
    """Return a plane blurred by a Gaussian."""
    result: GrayImage = ndimage.gaussian_filter(plane, sigma, mode="nearest")
    return result
