"""Array types that imaging code shares."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Labels: TypeAlias = npt.NDArray[np.int32]
"""Label image, axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n."""

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Whether a pixel belongs to something, axes YX or ZYX."""

GrayImage: TypeAlias = npt.NDArray[np.float32]
"""Intensities of one channel, axes YX or ZYX."""

Floats: TypeAlias = npt.NDArray[np.float32]
"""Any other float32 numbers; the docstring gives the shape."""

Indices: TypeAlias = npt.NDArray[np.int64]
"""Positions in another array, or counts."""
