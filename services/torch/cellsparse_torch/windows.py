"""Parts of images that crops are taken from on the device, as arrays that travel there.

The CPU draws where a crop lies, cuts out the part of the image that it shows, and makes the crop's labels. The device
takes the crop's values from that part, see `device_crops`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Floats


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of an image that a crop shows."""

    planes: Floats
    """Image channels, and whatever else turns with the image, (P, Y, X) or (P, Z, Y, X)."""
    matrix: npt.NDArray[np.float64]
    """Affine map from positions in the crop to positions in the window, both in the order of axes, (D, D + 1)."""
    gain: npt.NDArray[np.float32]
    """What image channels are multiplied with, (C,)."""
    shift: npt.NDArray[np.float32]
    """What is then added to them, (C,)."""


def packed(windows: Sequence[Window]) -> dict[str, npt.NDArray[Any]]:
    """Return windows of any sizes as arrays by name.

    Returns:
        "pixels", the planes of all windows one after another, (P, N); "start", where each window begins, and "shape",
        its lengths, (B,) and (B, D); "matrix" (B, D, D + 1); "gain" and "shift", (B, C).
    """
    sizes = [window.planes[0].size for window in windows]
    return {
        "pixels": np.concatenate([window.planes.reshape(len(window.planes), -1) for window in windows], axis=1),
        "start": np.cumsum([0, *sizes[:-1]]),
        "shape": np.array([window.planes.shape[1:] for window in windows]),
        "matrix": np.stack([window.matrix for window in windows]),
        "gain": np.stack([window.gain for window in windows]),
        "shift": np.stack([window.shift for window in windows]),
    }
