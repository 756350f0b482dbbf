"""Names for the arrays that images are made of; axes are YX, or ZYX for stacks, unless a docstring says otherwise."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Labels: TypeAlias = npt.NDArray[np.int32]
"""Label image: -1 not labelled (true labels only), 0 background, n > 0 cell n."""
Mask: TypeAlias = npt.NDArray[np.bool_]
"""True for the pixels that belong to something."""
GrayImage: TypeAlias = npt.NDArray[np.float32]
"""Intensities of one channel."""
Floats: TypeAlias = npt.NDArray[np.float32]
"""Any other float32 numbers; the docstring gives the shape."""
Indices: TypeAlias = npt.NDArray[np.int64]
"""Positions in another array, or counts."""
