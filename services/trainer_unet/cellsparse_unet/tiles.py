"""Class probabilities of images of any size, within bounded memory."""

import numpy as np
import numpy.typing as npt
import torch

from cellsparse_unet.model import MULTIPLE, UNet
from cellsparse_unet.parts import probabilities_by_parts

TILE = 1024


def probabilities(net: UNet, image: npt.NDArray[np.float32], *, tile: int = TILE) -> npt.NDArray[np.float32]:
    """Runs the network, on the whole image where it fits and on its parts where it does not.

    Both give the same but for the rounding of float32 sums, less than 0.0001.

    Args:
        net: The network; used in evaluation mode, on the device it is on.
        image: Axes YX, any size, normalised to [0, 1]; mirrored at its lower and right border up to the network's
            multiple.
        tile: Side in pixels of the largest square that goes through the network as a whole, a multiple of 32.

    Returns:
        Probabilities of background, outer and centre, float32 (3, Y, X).
    """
    height, width = image.shape
    padded = np.pad(image, ((0, -height % MULTIPLE), (0, -width % MULTIPLE)), mode="reflect")
    was_training = net.training
    net.eval()
    with torch.inference_mode():
        fits = padded.size <= tile * tile
        found = _run(net, padded) if fits else probabilities_by_parts(net, padded, tile // 2)
    net.train(was_training)
    return found[:, :height, :width]


def _run(net: UNet, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities of one image whose lengths are multiples of the network's."""
    device = next(net.parameters()).device
    result = net(torch.from_numpy(np.ascontiguousarray(image))[None, None].to(device))[0].exp()
    values: npt.NDArray[np.float32] = result.float().cpu().numpy()
    return values
