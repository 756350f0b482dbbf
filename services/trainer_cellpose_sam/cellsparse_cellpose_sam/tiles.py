"""Cellpose-SAM's network on images of any size."""

import numpy as np
import numpy.typing as npt
from cellpose import core
from cellpose.vit import CPSAM

from cellsparse_cellpose_sam.config import CROP

TILES_AT_ONCE = {"cpu": 1, "cuda": 8}
"""Tiles that go through the network at once: a GPU is busy with them, a CPU gains nothing from more."""


def run(network: CPSAM, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Run the network on overlapping tiles and average them where they overlap, with Cellpose 4's own code.

    Memory is linear in the image's pixels, about 60 bytes for each.

    Args:
        network: The network, on the device it is on.
        image: Grey values, shape (Y, X), or up to 3 channels, shape (Y, X, C), any size.

    Returns:
        Flows (y, x) times 5 and the logit of the cell probability, shape (3, Y, X).
    """
    channels = image if image.ndim == 3 else image[..., np.newaxis]
    planes = np.zeros((1, *image.shape[:2], 3), np.float32)
    planes[0, ..., : channels.shape[-1]] = channels  # the other channels are zero, as Cellpose has it for a grey image
    output = core.run_net(network, planes, batch_size=TILES_AT_ONCE[network.device.type], bsize=CROP)[0][0]
    return np.ascontiguousarray(output.transpose(2, 0, 1))
