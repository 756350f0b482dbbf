"""Tiles of large images that overlap by all that the network sees, so that they give what the whole would."""

import math
from collections.abc import Sequence
from typing import Any

TILE = 768
"""Largest height and width of an image, in pixels, that goes through the network in one piece."""
TILE_VOXELS = 2**23
"""Largest piece of a stack, in voxels with all that the network sees around it, that goes through it at once; a network
that sees further takes the smallest piece that is worth it."""


def reach(config: Any) -> tuple[int, ...]:
    """Return how many pixels along each axis beyond a block of pixels that are pooled together the network sees.

    From the output back to the image: convolutions widen the view by half their width, doubled resolutions round it up
    to whole pixels of the lower one.
    """
    assert config.backbone == "unet"
    convolutions = config.unet_n_conv_per_depth * (config.unet_kernel_size[0] // 2)
    seen = 0 if config.net_conv_after_unet == 0 else config.unet_kernel_size[0] // 2
    for _ in range(config.unet_n_depth):  # up
        seen = -(-(seen + convolutions) // config.unet_pool[0])
    seen += convolutions
    for _ in range(config.unet_n_depth):  # down
        seen = seen * config.unet_pool[0] + convolutions
    reaches = [seen] * len(config.grid)
    pooled = max(config.grid)
    while pooled > 1:  # axes of a finer grid are not pooled at the deeper levels, but their convolutions are there
        reaches = [r * (2 if g >= pooled else 1) + convolutions for r, g in zip(reaches, config.grid, strict=True)]
        pooled //= 2
    return tuple(int(r) for r in reaches)


def tiles(shape: tuple[int, ...], overlap: tuple[int, ...]) -> tuple[int, ...]:
    """Return the number of tiles along each axis in which an image goes through the network.

    Args:
        shape: Pixels of the image along each axis, YX or ZYX.
        overlap: What `reach` returns.
    """
    if len(shape) == 2:
        return -(-shape[0] // TILE), -(-shape[1] // TILE)
    counts, sides = [1, 1, 1], list(shape)
    while math.prod(_with_overlap(sides, overlap, shape)) > TILE_VOXELS:
        # The longest side first: cubes have the least around them. Below the overlap nothing is gained.
        side, axis = max((side, axis) for axis, side in enumerate(sides))
        if side <= overlap[axis]:
            break
        counts[axis] += 1
        sides[axis] = -(-shape[axis] // counts[axis])
    return tuple(counts)


def _with_overlap(sides: Sequence[int], overlap: Sequence[int], shape: Sequence[int]) -> list[int]:
    return [min(side + 2 * o, n) for side, o, n in zip(sides, overlap, shape, strict=True)]
