"""Cellpose's network with fewer passes over memory, for the prediction of single images on CPUs.

Much of the time of `CPnet.forward` on a CPU goes into batch normalisations and additions, which compute little and
move much. In prediction a normalisation is a multiplication and an addition per channel. Where it follows a convolution
it is part of that convolution's weights (Jacob et al. 2018, arXiv:1712.05877), and the style, one number per channel
and image, is part of the addition. Results differ from `CPnet.forward` by rounding only.

On CPUs that compute in bfloat16 in hardware the features may be bfloat16: half the memory to move, and convolutions
that multiply several times as many numbers in the same time.
"""

from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from cellpose.resnet_torch import CPnet
from torch import Tensor, nn
from torch.nn import functional


class InferenceNetwork(Protocol):
    """A network for prediction, as its parts: the way down, and the way up with the style."""

    device: torch.device
    """Where it computes."""
    most_images: int
    """Most images that it takes at once."""

    def downsample(self, x: Tensor) -> list[Tensor]:
        """Return the features of each level of images (B, C, Y, X)."""

    def style(self, deepest: Tensor) -> Tensor:
        """Return the style (B, C) of the features of the last level."""

    def upsample(self, style: Tensor, features: list[Tensor]) -> Tensor:
        """Return the output, shape (B, 3, Y, X), of a style (B, C) and the features of each level."""


def prepare(network: CPnet, *, half: bool = False) -> InferenceNetwork:
    """Return a network for prediction with the weights that a network has now.

    Args:
        network: The network; it is not changed.
        half: Whether convolutions compute in bfloat16, for CPUs that do so in hardware.
    """
    return FoldedNetwork(network, half=half) if network.device.type == "cpu" else StockNetwork(network)


class StockNetwork:
    """Cellpose's network as it is, whose weights it shares."""

    most_images = 8

    def __init__(self, network: CPnet) -> None:
        self.device = network.device
        self._network = network.eval()

    def downsample(self, x: Tensor) -> list[Tensor]:
        """Return the features of each level of images (B, C, Y, X)."""
        return list(self._network.downsample(x))

    def style(self, deepest: Tensor) -> Tensor:
        """Return the style (B, C) of the features of the last level."""
        found: Tensor = self._network.make_style(deepest)
        return found

    def upsample(self, style: Tensor, features: list[Tensor]) -> Tensor:
        """Return the output, shape (B, 3, Y, X), of a style (B, C) and the features of each level."""
        output: Tensor = self._network.output(self._network.upsample(style, features, False))
        return output


class _Affine(NamedTuple):
    """A normalisation in prediction: one factor and one summand per channel."""

    scale: Tensor
    shift: Tensor

    def __call__(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the rectified normalisation of features (1, C, Y, X), with another summand (C,) if it is given."""
        zero, one = torch.zeros_like(self.shift), torch.ones_like(self.shift)
        return functional.batch_norm(x, zero, one, self.scale, self.shift if shift is None else shift, eps=0.0).relu_()


class _Linear(NamedTuple):
    """A linear layer."""

    weight: Tensor
    bias: Tensor


class _Styled(NamedTuple):
    """A normalisation after a style is added, which a linear layer turns into one number per channel."""

    affine: _Affine
    full: _Linear

    def __call__(self, x: Tensor, style: Tensor) -> Tensor:
        """Return the rectified normalisation of features (1, C, Y, X) with a style (256,)."""
        return self.affine(x, self.added(self.affine.shift, style))

    def added(self, shift: Tensor, style: Tensor) -> Tensor:
        """Return a summand of the normalisation with the style's part."""
        return torch.addcmul(shift, self.affine.scale, functional.linear(style, self.full.weight, self.full.bias))


class _Convolution(NamedTuple):
    """A convolution; it takes features in the number format of its weights."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        shift = (self.bias if bias is None else bias).to(self.weight.dtype)
        return functional.conv2d(x, self.weight, shift, padding=self.weight.shape[-1] // 2)

    def halved(self) -> "_Convolution":
        """Return it with weights in bfloat16; summands that a style changes stay as they are."""
        return self._replace(weight=self.weight.bfloat16())


class _Down(NamedTuple):
    """A block of the way down: `cellpose.resnet_torch.resdown`."""

    project: _Convolution
    first: _Affine
    second: _Convolution
    third: _Convolution
    fourth: _Affine
    fifth: _Convolution
    sixth: _Convolution

    def __call__(self, x: Tensor) -> Tensor:
        y = self.third(self.second(self.first(x)).relu_()).add_(self.project(x))
        return self.sixth(self.fifth(self.fourth(y)).relu_()).add_(y)


class _Up(NamedTuple):
    """A block of the way up: `cellpose.resnet_torch.resup`."""

    project: _Convolution
    first: _Affine
    second: _Convolution
    third: _Styled
    fourth: _Convolution
    fifth: _Styled
    sixth: _Convolution
    seventh: _Styled
    eighth: _Convolution

    def __call__(self, x: Tensor, side: Tensor, style: Tensor) -> Tensor:
        y = self.second(self.first(x)).add_(side)
        y = self.fourth(self.third(y, style)).add_(self.project(x))
        z = self.sixth(self.fifth(y, style), self.seventh.added(self.sixth.bias, style)).relu_()
        return self.eighth(z).add_(y)


class FoldedNetwork:
    """What `CPnet.forward` computes in prediction, from weights that are copied when it is made.

    Args:
        network: The network; it is not changed.
        half: Whether convolutions and what lies between them are in bfloat16. Style and output are float32.
    """

    most_images = 1

    def __init__(self, network: CPnet, *, half: bool = False) -> None:
        self.device = network.device
        self._format = torch.bfloat16 if half else torch.float32
        with torch.no_grad():
            self._down = [_halved(_down(block)) if half else _down(block) for block in network.downsample.down]
            self._up = [_halved(_up(block)) if half else _up(block) for block in network.upsample.up]
            self._output = _affine(network.output[0]), _convolution(network.output[2])

    def downsample(self, x: Tensor) -> list[Tensor]:
        """Return the features of each level of an image (1, C, Y, X)."""
        features: list[Tensor] = []
        x = x.to(self._format)
        for block in self._down:
            x = block(functional.max_pool2d(features[-1], 2) if features else x)
            features.append(x)
        return features

    def style(self, deepest: Tensor) -> Tensor:
        """Return the style (1, C) of the features of the last level."""
        return functional.normalize(deepest.float().mean((2, 3)), dim=1, eps=0.0)

    def upsample(self, style: Tensor, features: list[Tensor]) -> Tensor:
        """Return the output, shape (1, 3, Y, X), of a style (1, C) and the features of each level."""
        x = features[-1]
        for level in reversed(range(len(self._up))):
            if level < len(self._up) - 1:
                x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self._up[level](x, features[level], style[0])
        affine, convolution = self._output
        return convolution(affine(x.float()))


def _affine(norm: nn.Module) -> _Affine:
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return _Affine(scale, norm.bias - norm.running_mean * scale)


def _convolution(conv: Any, before: nn.Module | None = None, after: nn.Module | None = None) -> _Convolution:
    """Return a convolution that takes in a normalisation before it, if it has no padding, and one after it."""
    weight, bias = conv.weight, conv.bias
    if before is not None:
        affine = _affine(before)
        bias = bias + (weight * affine.shift.view(1, -1, 1, 1)).sum((1, 2, 3))
        weight = weight * affine.scale.view(1, -1, 1, 1)
    if after is not None:
        affine = _affine(after)
        weight = weight * affine.scale.view(-1, 1, 1, 1)
        bias = bias * affine.scale + affine.shift
    return _Convolution(weight.detach().clone(memory_format=torch.channels_last), bias.detach().clone())


def _styled(block: Any) -> _Styled:
    full = _Linear(block.full.weight.detach().clone(), block.full.bias.detach().clone())
    return _Styled(_affine(block.conv[0]), full)


B = TypeVar("B", _Down, _Up)


def _halved(block: B) -> B:
    """Return a block whose convolutions compute in bfloat16."""
    parts: Any = (part.halved() if isinstance(part, _Convolution) else part for part in block)
    return type(block)(*parts)


def _down(block: Any) -> _Down:
    first, second, third, fourth = block.conv
    return _Down(
        project=_convolution(block.proj[1], before=block.proj[0]),
        first=_affine(first[0]),
        second=_convolution(first[2], after=second[0]),
        third=_convolution(second[2]),
        fourth=_affine(third[0]),
        fifth=_convolution(third[2], after=fourth[0]),
        sixth=_convolution(fourth[2]),
    )


def _up(block: Any) -> _Up:
    first, second, third, fourth = block.conv
    return _Up(
        project=_convolution(block.proj[1], before=block.proj[0]),
        first=_affine(first[0]),
        second=_convolution(first[2]),
        third=_styled(second),
        fourth=_convolution(second.conv[2]),
        fifth=_styled(third),
        sixth=_convolution(third.conv[2], after=fourth.conv[0]),
        seventh=_styled(fourth),
        eighth=_convolution(fourth.conv[2]),
    )
