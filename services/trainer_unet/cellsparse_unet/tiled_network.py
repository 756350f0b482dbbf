"""The network on images too large for memory, tile by tile, with the same result as on the whole.

Group normalisation takes mean and variance over the whole image, so tiles that go through the network one by one would
be normalised differently. Here every block of the network goes over all tiles of the image before the next block does:
first to collect its statistics, then to compute with them. A tile needs only two pixels around it. Between blocks only
the small maps are kept: the inputs of the encoder's blocks and the output of the block before. The skip connections
are computed again.

Images have axes YX and stacks ZYX; pixels stand for voxels, too.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import EllipsisType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from cellsparse_common.imaging.disk_array import release, zeros
from cellsparse_unet.network import CLASSES, UNet, enlarged

SMALLEST = 16
"""Shortest side of a tile in pixels of its level."""
HALO = 2
"""Pixels that a block's two convolutions see around one."""

Box: TypeAlias = tuple[tuple[int, int], ...]
"""First pixel and end along each axis, in pixels of a level."""
Read: TypeAlias = Callable[[Box], Tensor]
"""Gives the features (1, C, ...) of a box."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One resolution of the image."""

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    """Lengths of a tile in pixels, even."""

    def boxes(self) -> Iterator[Box]:
        edges = ([*range(0, length, tile), length] for length, tile in zip(self.shape, self.tile, strict=True))
        return itertools.product(*(itertools.pairwise(each) for each in edges))

    def grown(self, box: Box, by: int) -> Box:
        return tuple(
            (max(0, start - by), min(length, end + by)) for (start, end), length in zip(box, self.shape, strict=True)
        )

    def below(self, step: tuple[int, ...]) -> "_Level":
        return _Level(
            shape=tuple(length // by for length, by in zip(self.shape, step, strict=True)),
            tile=tuple(max(tile // by, SMALLEST) for tile, by in zip(self.tile, step, strict=True)),
        )


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
        """Return the block's output in a box, (1, C, ...)."""
        return self._compute(box, HALO)

    def _compute(self, box: Box, halo: int) -> Tensor:
        """Return the output of the stages there are; a tile's own border is wrong by `halo` pixels and cut off."""
        seen = self._level.grown(box, halo)
        x = self._read(seen)
        for stage in self._stages:
            x = stage(x)
        return _cut(x, seen, box)


def tiled_probabilities(net: UNet, image: npt.NDArray[np.float32], tile: int) -> npt.NDArray[np.float32]:
    """Classify every pixel.

    Args:
        net: The network.
        image: Axes CYX or CZYX, lengths as the network's `multiples` say.
        tile: Side of a tile in pixels at full resolution, a multiple of 16; tiles of lower levels are smaller.

    Returns:
        Probabilities of background, outer and centre, float32 (3, ...).
    """
    device = next(net.parameters()).device
    shape = image.shape[1:]
    levels = [_Level(shape=shape, tile=(tile,) * len(shape))]
    for step in net.steps:
        levels.append(levels[-1].below(step))
    x = torch.from_numpy(np.ascontiguousarray(image))[None]
    skips: list[Read] = []
    for layers, level, step in zip(net.encoder, levels, net.steps, strict=False):
        block = _Block(layers, _reader(x, device), level)
        skips.append(block)
        x = _pooled(net, block, level, step)
    x = _whole(_Block(net.base, _reader(x, device), levels[-1]), levels[-1])
    upwards = zip(net.decoder, levels[-2::-1], reversed(skips), reversed(net.steps), strict=True)
    for layers, level, skip, step in upwards:
        block = _Block(layers, _joined(skip, x, step, device), level)
        if level is not levels[0]:
            x = _whole(block, level)
    out = zeros((CLASSES, *shape), np.float32)
    for box in levels[0].boxes():
        found = F.softmax(net.out_conv(block(box)).float(), dim=1)[0]
        out[_at(box)] = found.float().cpu().numpy()
        release(out)
    return out


def _whole(read: Read, level: _Level) -> Tensor:
    """Read all the level's boxes into one tensor in main memory, a large one on disk."""
    result: npt.NDArray[np.float32] | None = None
    for box in level.boxes():
        found = read(box)
        if result is None:
            result = zeros((1, found.shape[1], *level.shape), np.float32)
        result[_at(box)] = found.float().cpu().numpy()
        release(result)
    assert result is not None
    return torch.from_numpy(result)


def _pooled(net: UNet, block: _Block, level: _Level, step: tuple[int, ...]) -> Tensor:
    """Return a block's output for the whole image, reduced to the level below, in main memory."""
    below = _Level(
        shape=tuple(length // by for length, by in zip(level.shape, step, strict=True)),
        tile=tuple(tile // by for tile, by in zip(level.tile, step, strict=True)),
    )
    return _whole(lambda box: net.pool(block(_scaled(box, step)), step), below)


def _reader(features: Tensor, device: torch.device) -> Read:
    return lambda box: features[_at(box)].to(device)


def _joined(skip: Read, below: Tensor, step: tuple[int, ...], device: torch.device) -> Read:
    """Return a reader of skip connection and level below, enlarged, side by side."""

    def read(box: Box) -> Tensor:
        source = tuple((start // by, -(-end // by)) for (start, end), by in zip(box, step, strict=True))
        doubled = enlarged(below[_at(source)].to(device), step)
        return torch.cat((skip(box), _cut(doubled, _scaled(source, step), box)), dim=1)

    return read


def _scaled(box: Box, step: tuple[int, ...]) -> Box:
    """Return the box of a level in pixels of the level above."""
    return tuple((start * by, end * by) for (start, end), by in zip(box, step, strict=True))


def _at(box: Box) -> tuple[EllipsisType | slice, ...]:
    """Return the index of a box in features (1, C, ...)."""
    return ..., *(slice(start, end) for start, end in box)


def _cut(x: Tensor, has: Box, wanted: Box) -> Tensor:
    """Return the wanted part of the features of a box."""
    return x[_at(tuple((start - first, end - first) for (first, _), (start, end) in zip(has, wanted, strict=True)))]


def _activated(convolution: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: F.relu(convolution(x))


def _normalised(norm: nn.Module, outputs: Iterator[Tensor]) -> Callable[[Tensor], Tensor]:
    """Return group normalisation with the statistics of all tiles together."""
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
    space = [1] * (x.ndim - 2)
    a, b = (value.float().reshape(1, -1, *space) for value in (scale, shift))
    return lambda x: x * a + b
