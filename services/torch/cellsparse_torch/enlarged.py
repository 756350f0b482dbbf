"""Convolution of features that were enlarged to twice their height and width, without making the enlarged ones."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def convolve_enlarged(below: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute the convolution of features whose every pixel is repeated twice along both axes.

    Repeating pixels and convolving them is one transposed convolution of the features as they are, with the kernel
    smeared over two pixels. It multiplies 4 numbers where the plain form multiplies 9, and nothing large is copied. The
    sums are the same up to rounding.

    Args:
        below: Features (B, C, Y, X).
        weight: Kernel (D, C, 3, 3) of a convolution with padding 1.
        bias: Summands (D,); None: zeros.

    Returns:
        Features (B, D, 2 Y, 2 X).
    """
    return F.conv_transpose2d(below, _smeared(weight), bias, stride=2, padding=1)


def _smeared(weight: Tensor) -> Tensor:
    """Return the kernel (C, D, 4, 4) of the transposed convolution, in the number format of the weights.

    As a product of matrices it costs little beside the convolution, also where features are few and kernels many.
    """
    out, channels = weight.shape[:2]
    axis = weight.new_zeros(4, 3)
    for position in range(3):  # a transposed convolution mirrors the kernel
        axis[2 - position : 4 - position, position] = 1
    smear = torch.kron(axis, axis)
    with torch.autocast(weight.device.type, enabled=False):  # a sum of rounded weights would be rounded twice
        smeared = smear @ weight.permute(0, 2, 3, 1).reshape(out, 9, channels)
    return smeared.reshape(out, 4, 4, channels).permute(3, 0, 1, 2)
