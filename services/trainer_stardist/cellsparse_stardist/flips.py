"""What the network says of an image and its mirror image, on average (Wang 2019, doi:10.1016/j.neucom.2019.01.103)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = list[npt.NDArray[np.float32]]
Predict = Callable[..., Arrays]
"""Takes images of shape (B, Y, X, C); returns probabilities (B, Y / grid, X / grid, 1) and rays (..., R)."""


def with_flips(predict: Predict, grid: int, depth: int) -> Predict:
    """Return what predicts the means over an image and the image mirrored along both axes.

    A mirrored image has its grid points elsewhere: point i of n is at pixel i * grid, and its mirror image at the last
    pixel less i * grid, which is no grid point for a grid above 1. So the mirror image is moved by one pixel, and one
    block of pixels that the network pools together is reflected on each side, where the mirror image would lack one.

    Args:
        predict: Heights and widths of its images are multiples of grid * 2**depth.
        grid: Pixels per grid point.
        depth: Times that the network halves the image after the grid.
    """
    block = grid * 2**depth

    def both(image: npt.NDArray[np.float32], **given: Any) -> Arrays:
        prob, dist = predict(image, **given)
        mirrored = predict(_mirrored(image, block), **given)
        rows, columns = (np.arange(n, 0, -1) for n in prob.shape[1:3])
        other_prob, other_dist = (output[:, rows][:, :, columns] for output in mirrored)
        return [(prob + other_prob) / 2, (dist + _opposite(other_dist)) / 2]

    return both


def _opposite(dist: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return rays (..., R) that point the opposite way; of an odd number the mean of the two nearest ones."""
    n_rays = dist.shape[-1]
    turned = np.roll(dist, -(n_rays // 2), axis=-1)
    return (turned + np.roll(turned, -1, axis=-1)) / 2 if n_rays % 2 else turned


def _mirrored(image: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    """Return an image (B, Y + block, X + block, C) whose pixels p, q are the pixels Y - p, X - q of the image."""
    wide = np.pad(image, [(0, 0), (block, block), (block, block), (0, 0)], mode="reflect")
    rows, columns = (np.arange(n, -block, -1) + block for n in image.shape[1:3])
    return np.ascontiguousarray(wide[:, rows][:, :, columns])
