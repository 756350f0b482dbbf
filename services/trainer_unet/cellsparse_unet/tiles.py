"""Class probabilities of images of any size, within bounded memory."""

import itertools

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cellsparse_unet.model import CLASSES, MULTIPLE

TILE, MARGIN = 1024, 64


def probabilities(
    net: nn.Module, image: npt.NDArray[np.float32], *, tile: int = TILE, margin: int = MARGIN
) -> npt.NDArray[np.float32]:
    """Runs the network, on the whole image where it fits and on overlapping tiles where it does not.

    Args:
        net: The network; used in evaluation mode, on the device it is on.
        image: Axes YX, any size, normalised to [0, 1].
        tile: Longest side of a tile without its margins in pixels, a multiple of 16.
        margin: Pixels around a tile that the network sees and whose results are dropped, a multiple of 16.

    Returns:
        Probabilities of background, outer and centre, float32 (3, Y, X).
    """
    height, width = image.shape
    out = np.empty((CLASSES, height, width), np.float32)
    for top, bottom in _parts(height, tile):
        for left, right in _parts(width, tile):
            y, x = max(0, top - margin), max(0, left - margin)
            seen = image[y : bottom + margin, x : right + margin]
            result = _run(net, seen)
            out[:, top:bottom, left:right] = result[:, top - y : bottom - y, left - x : right - x]
    return out


def _parts(length: int, tile: int) -> list[tuple[int, int]]:
    """Splits a length into similar parts of at most `tile`, at multiples of the network's, so that pooling agrees."""
    count = max(1, -(-length // tile))
    step = -(-length // (count * MULTIPLE)) * MULTIPLE
    edges = [*range(0, length, step), length]
    return list(itertools.pairwise(edges))


def _run(net: nn.Module, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities of one image, mirrored at its lower and right border up to the network's multiple."""
    height, width = image.shape
    padded = np.pad(image, ((0, -height % MULTIPLE), (0, -width % MULTIPLE)), mode="reflect")
    device = next(net.parameters()).device
    was_training = net.training
    net.eval()
    with torch.inference_mode():
        result = net(torch.from_numpy(np.ascontiguousarray(padded))[None, None].to(device))[0].exp()
    net.train(was_training)
    values: npt.NDArray[np.float32] = result[:, :height, :width].float().cpu().numpy()
    return values
