"""Crops taken from windows by linear interpolation, on whatever device the windows lie."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor


def take(batch: Mapping[str, Tensor], size: tuple[int, ...]) -> Tensor:
    """Return the crops of a batch of windows, without their gain and shift.

    Positions are float64, so that they are those of the CPU; values are float32.

    Args:
        batch: What `windows.packed` returned, as tensors.
        size: Lengths of the crops, in the order of axes.

    Returns:
        All planes, shape (B, P, *size); 0 outside the windows.
    """
    dims, pixels = len(size), batch["pixels"]
    axes = [torch.arange(length, dtype=torch.float64, device=pixels.device) for length in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    matrix, lengths = batch["matrix"], batch["shape"][:, :, None]
    at = matrix[:, :, :dims] @ places + matrix[:, :, dims:]
    lower = at.floor()
    parts, lower = (at - lower).float(), lower.long()
    crops = torch.zeros(len(pixels), len(matrix), places.shape[1], device=pixels.device)
    for corner in itertools.product((0, 1), repeat=dims):
        here = lower + torch.tensor(corner, device=pixels.device)[:, None]
        inside = ((here >= 0) & (here < lengths)).all(1)
        weights = torch.stack([parts[:, axis] if up else 1 - parts[:, axis] for axis, up in enumerate(corner)])
        here = here.clamp(min=0).minimum(lengths - 1)
        flat = torch.zeros_like(here[:, 0])
        for axis in range(dims):
            flat = flat * lengths[:, axis] + here[:, axis]
        crops += weights.prod(0) * inside * pixels[:, flat + batch["start"][:, None]]
    return crops.movedim(1, 0).reshape(len(matrix), len(pixels), *size)


def recoloured(images: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Return images (B, C, ...) with the gain and the shift that was drawn for each channel."""
    wide = (..., *[None] * (images.ndim - 2))
    return images * batch["gain"][wide] + batch["shift"][wide]
