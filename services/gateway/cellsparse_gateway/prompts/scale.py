"""Windows of large cells at a smaller size."""

import numpy as np
from scipy import ndimage

from cellsparse_gateway.prompts.types import Mask, Plane


def shrunk(plane: Plane, factor: int) -> Plane:
    """Return the means of blocks of `factor` x `factor` pixels; those at the right and lower edge repeat pixels."""
    if factor == 1:
        return plane
    height, width = plane.shape
    padded = np.pad(plane, ((0, -height % factor), (0, -width % factor)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor)
    result: Plane = blocks.mean((1, 3), dtype=np.float32)
    return result


def grown(mask: Mask, factor: int, shape: tuple[int, ...]) -> Mask:
    """Return a mask on pixels `factor` times as small, without the steps of the large ones."""
    if factor == 1:
        return mask
    fine = np.repeat(np.repeat(mask, factor, 0), factor, 1)[: shape[0], : shape[1]].astype(np.float32)
    result: Mask = ndimage.gaussian_filter(fine, 0.5 * factor, mode="nearest") > 0.5
    return result
