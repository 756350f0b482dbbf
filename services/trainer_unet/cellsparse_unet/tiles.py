"""Class probabilities of images and stacks of any size, within bounded memory."""

import numpy as np
import numpy.typing as npt
import torch

from cellsparse_common.imaging.disk_array import release, zeros
from cellsparse_unet.network import CLASSES, MULTIPLE, UNet
from cellsparse_unet.tiled_network import tiled_probabilities

TILE = 1024


def probabilities(
    net: UNet, image: npt.NDArray[np.float32], *, tile: int = TILE, half: bool = False
) -> npt.NDArray[np.float32]:
    """Run the network, on the whole image where it fits and tile by tile where it does not.

    Both give the same but for the rounding of float32 sums, less than 0.0001; in bfloat16 less than 0.05.

    Args:
        net: The network; used in evaluation mode, on the device it is on.
        image: Axes YX or ZYX as the network's, of a network of several channels YXC or ZYXC, any size, normalised to
            [0, 1]; mirrored at its far borders up to the network's multiples.
        tile: Side in pixels of the largest square that goes through the network as a whole, a multiple of 32; stacks
            may have as many voxels.
        half: Whether convolutions compute in bfloat16, for CPUs that do so in hardware.

    Returns:
        Probabilities of background, outer and centre, float32 (3, Y, X) or (3, Z, Y, X).
    """
    planes = image[np.newaxis] if net.inputs == 1 else np.moveaxis(image, -1, 0)
    shape = planes.shape[1:]
    missing = [(0, -length % multiple) for length, multiple in zip(shape, net.multiples, strict=True)]
    padded = np.pad(planes, [(0, 0), *missing], mode="reflect") if any(end for _, end in missing) else planes
    was_training = net.training
    net.eval()
    device = next(net.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        fits = padded[0].size <= tile * tile
        found = _run(net, padded) if fits else tiled_probabilities(net, padded, _tile_side(tile, len(shape)))
    net.train(was_training)
    return found[:, *(slice(length) for length in shape)]


def flipped_probabilities(
    net: UNet, image: npt.NDArray[np.float32], *, tile: int = TILE, half: bool = False
) -> npt.NDArray[np.float32]:
    """Return the mean of the probabilities of an image and of its mirror images along Y, X and both.

    Args:
        net: As for `probabilities`.
        image: As for `probabilities`.
        tile: As for `probabilities`.
        half: As for `probabilities`.
    """
    dims = len(net.multiples)
    total = zeros((CLASSES, *image.shape[:dims]), np.float32)
    mirrored = zeros(image.shape, np.float32)
    for axes in ((), (-2,), (-1,), (-2, -1)):
        mirrored[...] = np.flip(image, [dims + axis for axis in axes])
        total += np.flip(probabilities(net, mirrored, tile=tile, half=half), axes)
        release(total)
    total /= np.float32(4)
    return total


def _tile_side(tile: int, dims: int) -> int:
    """Return the side of a tile with a quarter of the pixels that go through as a whole; a multiple of `MULTIPLE`."""
    if dims == 2:
        return tile // 2
    side = int(np.cbrt(tile * tile / 4) + 1e-6)  # the cube root of a cube may come out just below its side
    return max(MULTIPLE, side // MULTIPLE * MULTIPLE)


def _run(net: UNet, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the probabilities of one image (C, ...) whose lengths are multiples of the network's."""
    device = next(net.parameters()).device
    result = net(torch.from_numpy(np.ascontiguousarray(image))[None].to(device))[0].exp()
    values: npt.NDArray[np.float32] = result.float().cpu().numpy()
    return values
