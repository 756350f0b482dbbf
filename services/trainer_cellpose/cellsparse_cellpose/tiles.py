"""Cellpose's network on images of any size, within bounded memory and without seams."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from cellpose.transforms import get_pad_yx

from cellsparse_cellpose.inference import InferenceNetwork

TILE = 768
"""Side in pixels of the largest square that goes through the network as a whole."""
MOST_IMAGES = 8
"""Most images that go through the network at once: a GPU is busy with them, a CPU gains nothing from more."""
MULTIPLE = 16
"""Tiles begin at multiples of this, so that pooling agrees."""

_STYLE_REACH = 64
"""Pixels that the way down sees around one, 60, up to a multiple of 16."""
REACH = 128
"""Pixels that the network sees around one, 124, up to a multiple of 16."""

Box: TypeAlias = tuple[int, int, int, int]
"""top, bottom, left, right in pixels."""


def run(network: InferenceNetwork, planes: npt.NDArray[np.float32], *, tile: int = TILE) -> npt.NDArray[np.float32]:
    """Run the network, on the whole image where it fits and on overlapping tiles where it does not.

    Stock Cellpose computes a style for every tile and averages the tiles where they overlap, so its result depends on
    where the tiles lie. Here all tiles get the style of the whole image and overlap by all that the network sees.
    Whole and tiled results differ by rounding only, less than 0.001.

    Args:
        network: The network, on the device it is on.
        planes: Shape (Y, X, channels), any size.
        tile: Side in pixels of the largest square taken as a whole.

    Returns:
        Flows (y, x) times 5 and the logit of the cell probability, shape (Y, X, 3).
    """
    height, width = planes.shape[:2]
    above, below, left, right = get_pad_yx(height, width)
    padded_shape = (height + above + below, width + left + right)
    if padded_shape[0] * padded_shape[1] <= tile * tile:
        whole: npt.NDArray[np.float32] = run_many(network, planes[np.newaxis])[0]
        return whole
    padded = np.pad(planes, ((above, below), (left, right), (0, 0))).transpose(2, 0, 1)
    # Tiles without their surroundings: the rest of the size that fits, but at least a few pixels.
    side = max(tile - 2 * REACH, 4 * MULTIPLE) // MULTIPLE * MULTIPLE
    with torch.inference_mode():
        style = image_style(network, padded.shape[1:], side, lambda box: _part(padded, box))
        output = np.empty((3, *padded_shape), np.float32)
        for box, seen in _boxes(padded_shape, side, REACH):
            found = network.upsample(style, network.downsample(_tensor(network, padded, seen)))
            output[:, box[0] : box[1], box[2] : box[3]] = cut(found, seen, box, 1)[0].float().cpu().numpy()
    return output[:, above : above + height, left : left + width].transpose(1, 2, 0)


def run_many(network: InferenceNetwork, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Run the network on images of one size, as many at once as it takes.

    Args:
        network: The network, on the device it is on.
        images: Shape (N, Y, X, channels), at most `images_per_batch` of them.

    Returns:
        As `run`, shape (N, Y, X, 3).
    """
    height, width = images.shape[1:3]
    above, below, left, right = get_pad_yx(height, width)
    padded = np.pad(images, ((0, 0), (above, below), (left, right), (0, 0))).transpose(0, 3, 1, 2)
    output = np.empty((len(images), 3, height, width), np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), network.most_images):
            some = torch.from_numpy(padded[start : start + network.most_images]).to(network.device)
            features = network.downsample(some)
            found = network.upsample(network.style(features[-1]), features)
            inside = found[:, :, above : above + height, left : left + width]
            output[start : start + network.most_images] = inside.float().cpu().numpy()
    return output.transpose(0, 2, 3, 1)


def images_per_batch(height: int, width: int, *, tile: int = TILE) -> int:
    """Return how many images of a size go through the network at once, from 1: together no more than one tile."""
    above, below, left, right = get_pad_yx(height, width)
    pixels = int((height + above + below) * (width + left + right))
    return max(1, min(MOST_IMAGES, tile * tile // pixels))


def image_style(
    network: InferenceNetwork, shape: tuple[int, ...], side: int, read: Callable[[Box], npt.NDArray[np.float32]]
) -> torch.Tensor:
    """Return the style of an image: the mean of the deepest features, scaled to length 1.

    Args:
        network: The network.
        shape: Height and width of the padded image.
        side: Side of a tile without its surroundings.
        read: Returns a part of the padded image, shape (channels, Y, X).
    """
    total: Any = 0
    for box, seen in _boxes(shape, side, _STYLE_REACH):
        deepest = network.downsample(torch.from_numpy(read(seen))[None].to(network.device))[-1]
        scale = (seen[1] - seen[0]) // deepest.shape[2]
        total = total + cut(deepest, seen, box, scale).double().sum(dim=(2, 3))
    style: torch.Tensor = (total / total.square().sum(dim=1, keepdim=True).sqrt()).float()
    return style


def padding(height: int, width: int) -> Box:
    """Return the zeros around an image before it goes through the network: above, below, left, right."""
    above, below, left, right = get_pad_yx(height, width)
    return int(above), int(below), int(left), int(right)


def _boxes(shape: tuple[int, ...], side: int, reach: int) -> Iterator[tuple[Box, Box]]:
    """Yield the tiles of an image, and what the network needs to see for each."""
    edges = ([*range(0, length, side), length] for length in shape)
    for (top, bottom), (left, right) in itertools.product(*(itertools.pairwise(each) for each in edges)):
        seen = max(0, top - reach), min(shape[0], bottom + reach), max(0, left - reach), min(shape[1], right + reach)
        yield (top, bottom, left, right), seen


def _tensor(network: InferenceNetwork, padded: npt.NDArray[np.float32], box: Box) -> torch.Tensor:
    return torch.from_numpy(_part(padded, box))[None].to(network.device)


def _part(padded: npt.NDArray[np.float32], box: Box) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(padded[:, box[0] : box[1], box[2] : box[3]])


def cut(x: torch.Tensor, seen: Box, box: Box, scale: int) -> torch.Tensor:
    """Return a box of the features of what was seen for it, which have one value for `scale` pixels."""
    top, bottom, left, right = (
        (at - start) // scale for at, start in zip(box, (seen[0], seen[0], seen[2], seen[2]), strict=True)
    )
    return x[..., top:bottom, left:right]
