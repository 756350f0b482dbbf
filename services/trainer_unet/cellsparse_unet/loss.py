"""ELEPHANT's segmentation loss on sparse labels (Sugawara 2022, doi:10.7554/eLife.69380), written for whole batches."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from cellsparse_torch.data_parallel import Total, local_only
from cellsparse_trainer.data.background import LIKELY
from cellsparse_unet.targets import BACKGROUND, CENTRE, IGNORED, NOT_CENTRE, OUTER, TOUCHING

_LIKELY_WEIGHT, _TOUCHING_WEIGHT = 3, 4
"""Where the weights of likely background and of touching pixels stand among the weights of classes."""
SMOOTHING = ((3, 1.0), (5, 8.0), (5, 8.0))
"""Width and sigma of the smoothing along Z, Y and X in pixels; images have the last two."""


def segmentation_loss(
    log_probability: Tensor,
    target: Tensor,
    weights: Tensor,
    shares: tuple[float, float, float],
    *,
    total: Total = local_only,
) -> dict[str, Tensor]:
    """Return weighted NLL and centre Dice on labelled pixels, plus smoothness of the centre map on all pixels.

    Axes "..." are YX for images and ZYX for stacks.

    Each crop counts the same, however many of its pixels are labelled. A crop without a labelled pixel adds smoothness
    only and one without a centre has no Dice term, so every value is finite for every target.

    Args:
        log_probability: Log-probabilities of background, outer and centre, (B, 3, ...).
        target: Classes 0, 1, 2, `LIKELY` (-2) for likely background, `NOT_CENTRE` (-3) for background or outer, or -1
            for not labelled; `TOUCHING` (3) is outer beside another cell. int64 (B, ...).
        weights: Weights of background, outer, centre, likely background and touching pixels in the NLL, (5,).
        shares: Weights of NLL, Dice and smoothness in the sum; ELEPHANT's are 1/7, 5/7, 1/7.
        total: Adds up counts of crops over all processes that train together; the values are then these crops' shares.

    Returns:
        Scalars "nll", "dice", "smooth" and their weighted sum "loss".
    """
    labelled, centred = (target != IGNORED).flatten(1).any(1), (target == CENTRE).flatten(1).any(1)
    every = torch.ones_like(labelled)
    chosen = torch.stack([labelled, centred, every]).to(log_probability.dtype)
    counts = total(chosen.sum(1)).clamp(min=1)
    centre = log_probability[:, CENTRE].exp()
    rough = (centre - _smoothed(centre)).abs().flatten(1).mean(1)
    terms = torch.stack([_nll(log_probability, target, weights), _centre_dice(centre, target), rough])
    nll, dice, smooth = (terms * chosen).sum(1) / counts
    return {
        "loss": shares[0] * nll + shares[1] * dice + shares[2] * smooth,
        "nll": nll,
        "dice": dice,
        "smooth": smooth,
    }


def _nll(log_probability: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted NLL of each crop, (B,); pixels that are background or outer weigh as outer ones."""
    touching, either = target == TOUCHING, target == NOT_CENTRE
    classes = torch.where(touching, OUTER, target.clamp(min=BACKGROUND))
    kinds = torch.where(target == LIKELY, _LIKELY_WEIGHT, torch.where(either, OUTER, classes))
    kinds = torch.where(touching, _TOUCHING_WEIGHT, kinds)
    weight = weights[kinds] * (target != IGNORED)
    picked = log_probability.gather(1, classes[:, None])[:, 0]
    picked = torch.where(either, log_probability[:, :CENTRE].logsumexp(1), picked)
    # A pixel without weight must not turn an infinite log-probability into NaN: select, do not multiply.
    picked = torch.where(weight > 0, picked, torch.zeros_like(picked))
    space = _space(target)
    return -(weight * picked).sum(space) / weight.sum(space).clamp(min=1e-6)


def _centre_dice(centre: Tensor, target: Tensor) -> Tensor:
    """Return the Dice loss of each crop's centres, (B,)."""
    labelled = (target >= BACKGROUND).to(centre.dtype)
    truth = (target == CENTRE).to(centre.dtype)
    found = centre * labelled
    space = _space(target)
    overlap = (found * truth).sum(space)
    both = (found * found).sum(space) + truth.sum(space)
    return 1 - 2 * overlap / both.clamp(min=1e-6)


def _space(target: Tensor) -> tuple[int, ...]:
    """Return the axes of a tensor (B, ...) that are not the batch's."""
    return tuple(range(1, target.ndim))


def _smoothed(centre: Tensor) -> Tensor:
    """Return the centre map after half-resolution Gaussian smoothing, (B, ...)."""
    dims = centre.ndim - 1
    convolve = F.conv2d if dims == 2 else F.conv3d
    kernel = torch.ones((), dtype=centre.dtype, device=centre.device)
    for width, sigma in SMOOTHING[-dims:]:
        offset = torch.arange(width, dtype=centre.dtype, device=centre.device) - width // 2
        kernel = kernel[..., None] * torch.exp(-((offset / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum())[None, None]
    padding = [width // 2 for width, _ in SMOOTHING[-dims:]]
    half = convolve(centre[:, None], kernel, stride=2, padding=padding)
    full = F.interpolate(half, size=centre.shape[1:], mode="nearest")
    return convolve(full, kernel, padding=padding)[:, 0]
