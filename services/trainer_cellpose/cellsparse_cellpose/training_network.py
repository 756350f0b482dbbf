"""Cellpose's network, with less work in a training step on a CPU."""

from cellpose.resnet_torch import CPnet, resup
from torch import Tensor, nn
from torch.nn import functional

from cellsparse_torch.batch_norm import SynchronisedBatchNorm
from cellsparse_torch.enlarged import convolve_enlarged


class TrainedNetwork(CPnet):  # type: ignore[misc]
    """`CPnet`, whose way up does not make enlarged features in training steps on CPUs.

    Each block of the way up enlarges features, normalises and rectifies them, and convolves them. The first two do the
    same to each copy of a pixel. So they are done before, on a quarter of the pixels, and the convolution takes the
    smaller features (see `convolve_enlarged`). Outputs, gradients and running statistics are those of `CPnet` up to
    rounding; weights have the same names and shapes.
    """

    def forward(self, data: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the output (B, 3, Y, X) of images (B, 2, Y, X), the style, and the features of each level."""
        if not (self.training and data.device.type == "cpu"):
            found: tuple[Tensor, Tensor, list[Tensor]] = super().forward(data)
            return found
        features = self.downsample(data)
        style = self.make_style(features[-1])
        blocks = self.upsample.up
        x = blocks[-1](features[-1], features[-1], style)
        for block, beside in zip(reversed(blocks[:-1]), reversed(features[:-1]), strict=True):
            x = _up(block, x, beside, style)
        return self.output(x), style, features


def _up(block: resup, below: Tensor, beside: Tensor, style: Tensor) -> Tensor:
    """Compute `block(enlarged(below), beside, style)`.

    Args:
        block: A block of the way up.
        below: Features of the level below, (B, C, Y / 2, X / 2).
        beside: Features of the way down, (B, D, Y, X).
        style: Shape (B, S).
    """
    norm, rectify, convolution = block.conv[0]
    first = convolve_enlarged(rectify(_normalised(norm, below)), convolution.weight, convolution.bias)
    norm, project = block.proj
    side = functional.interpolate(project(_normalised(norm, below)), scale_factor=2.0, mode="nearest")
    x = side + block.conv[1](style, first, y=beside)
    result: Tensor = x + block.conv[3](style, block.conv[2](style, x))
    return result


def _normalised(norm: nn.BatchNorm2d, below: Tensor) -> Tensor:
    """Return `norm(below)`, its running variance as if each pixel were there four times.

    The running variance is that of a sample: the mean square times n / (n - 1).
    """
    if isinstance(norm, SynchronisedBatchNorm):
        shared: Tensor = norm(below, copies=4)
        return shared
    assert norm.running_var is not None
    assert norm.momentum is not None
    before = norm.running_var.clone()
    normalised: Tensor = norm(below)
    n = below.numel() // below.shape[1]
    factor = (n - 1) / n * (4 * n) / (4 * n - 1)
    # As `data`, because autograd takes a change for one of a value that it needs; in training mode it does not.
    norm.running_var.data.mul_(factor).add_(before, alpha=(1 - factor) * (1 - norm.momentum))
    return normalised
