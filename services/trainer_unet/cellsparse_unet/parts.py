"""The network on images too large for memory, part by part, with the same result as on the whole.

Group normalisation takes mean and variance over the whole image, so tiles that go through the network one by one would
be normalised differently. Here every block of the network goes over all parts of the image before the next block does:
first to collect its statistics, then to compute with them. A part needs only two pixels around it. Between blocks only
the small maps are kept: the inputs of the encoder's blocks and the output of the block before; what the skip
connections carry is computed again.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from cellsparse_unet.model import CLASSES, UNet

SMALLEST = 16
HALO = 2  # pixels that a block's two convolutions see around one

Box: TypeAlias = tuple[int, int, int, int]
"""top, bottom, left, right in pixels of a level."""
Read: TypeAlias = Callable[[Box], Tensor]
"""Gives the features (1, C, Y, X) of a box."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One resolution of the image."""

    shape: tuple[int, int]
    part: int
    """Side of a part in pixels, even."""

    def boxes(self) -> Iterator[Box]:
        edges = ([*range(0, length, self.part), length] for length in self.shape)
        for (top, bottom), (left, right) in itertools.product(*(itertools.pairwise(each) for each in edges)):
            yield top, bottom, left, right

    def grown(self, box: Box, by: int) -> Box:
        (height, width), (top, bottom, left, right) = self.shape, box
        return max(0, top - by), min(height, bottom + by), max(0, left - by), min(width, right + by)


class _Block:
    """A block of the network with the statistics of one image.

    Args:
        layers: Convolution, ReLU, normalisation, twice.
        read: Gives the block's input.
        level: Where it works.
    """

    def __init__(self, layers: nn.Module, read: Read, level: _Level) -> None:
        self._read, self._level = read, level
        first, _, first_norm, second, _, second_norm = layers.children()
        self._stages: list[Callable[[Tensor], Tensor]] = []
        for convolution, norm, halo in ((first, first_norm, 1), (second, second_norm, HALO)):
            self._stages.append(_activated(convolution))
            self._stages.append(_normalised(norm, (self._compute(box, halo) for box in level.boxes())))

    def __call__(self, box: Box) -> Tensor:
        """Return the block's output in a box, (1, C, Y, X)."""
        return self._compute(box, HALO)

    def _compute(self, box: Box, halo: int) -> Tensor:
        """Return the output of the stages there are; a part's own border is wrong by `halo` pixels and cut off."""
        seen = self._level.grown(box, halo)
        x = self._read(seen)
        for stage in self._stages:
            x = stage(x)
        return _cut(x, seen, box)


def probabilities_by_parts(net: UNet, image: npt.NDArray[np.float32], part: int) -> npt.NDArray[np.float32]:
    """Classifies every pixel.

    Args:
        net: The network.
        image: Axes YX, lengths that are multiples of 16.
        part: Side of a part in pixels at full resolution, a multiple of 16; parts of lower levels are smaller.

    Returns:
        Probabilities of background, outer and centre, float32 (3, Y, X).
    """
    device = next(net.parameters()).device
    height, width = image.shape
    levels = [
        _Level(shape=(height >> n, width >> n), part=max(part >> n, SMALLEST)) for n in range(len(net.encoder) + 1)
    ]
    x = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    skips: list[Read] = []
    for layers, level in zip(net.encoder, levels, strict=False):
        block = _Block(layers, _reader(x, device), level)
        skips.append(block)
        x = _whole(block, level, pooled=True)
    x = _whole(_Block(net.base, _reader(x, device), levels[-1]), levels[-1])
    for layers, level, skip in zip(net.decoder, levels[-2::-1], reversed(skips), strict=True):
        block = _Block(layers, _joined(skip, x, device), level)
        if level is not levels[0]:
            x = _whole(block, level)
    out = np.empty((CLASSES, height, width), np.float32)
    for top, bottom, left, right in levels[0].boxes():
        found = F.softmax(net.out_conv(block((top, bottom, left, right))), dim=1)[0]
        out[:, top:bottom, left:right] = found.float().cpu().numpy()
    return out


def _whole(block: _Block, level: _Level, *, pooled: bool = False) -> Tensor:
    """Return a block's output for the whole image, in main memory; halved by max pooling if asked for."""
    result: Tensor | None = None
    scale = 2 if pooled else 1
    for box in level.boxes():
        found = block(box)
        found = F.max_pool2d(found, 2) if pooled else found
        if result is None:
            result = torch.empty((1, found.shape[1], level.shape[0] // scale, level.shape[1] // scale))
        top, bottom, left, right = (at // scale for at in box)
        result[..., top:bottom, left:right] = found.cpu()
    assert result is not None
    return result


def _reader(features: Tensor, device: torch.device) -> Read:
    return lambda box: features[..., box[0] : box[1], box[2] : box[3]].to(device)


def _joined(skip: Read, below: Tensor, device: torch.device) -> Read:
    """Return a reader of skip connection and level below, doubled, side by side."""

    def read(box: Box) -> Tensor:
        top, bottom, left, right = box
        source = below[..., top // 2 : -(-bottom // 2), left // 2 : -(-right // 2)].to(device)
        doubled = F.interpolate(source, scale_factor=2.0, mode="nearest")
        up = _cut(doubled, (top // 2 * 2, -(-bottom // 2) * 2, left // 2 * 2, -(-right // 2) * 2), box)
        return torch.cat((skip(box), up), dim=1)

    return read


def _cut(x: Tensor, has: Box, wanted: Box) -> Tensor:
    return x[..., wanted[0] - has[0] : wanted[1] - has[0], wanted[2] - has[2] : wanted[3] - has[2]]


def _activated(convolution: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: F.relu(convolution(x))


def _normalised(norm: nn.Module, outputs: Iterator[Tensor]) -> Callable[[Tensor], Tensor]:
    """Return group normalisation with the statistics of all parts together."""
    assert isinstance(norm, nn.GroupNorm)
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for x in outputs:
        values = x.double().reshape(norm.num_groups, -1)
        count += values.shape[1]
        total = total.to(x.device) + values.sum(1)
        squares = squares.to(x.device) + values.square().sum(1)
    mean = total / count
    deviation = torch.sqrt(squares / count - mean.square() + norm.eps)
    each = norm.num_channels // norm.num_groups
    scale = norm.weight / deviation.repeat_interleave(each)
    shift = norm.bias - mean.repeat_interleave(each) * scale
    a, b = (value.float()[None, :, None, None] for value in (scale, shift))
    return lambda x: x * a + b
