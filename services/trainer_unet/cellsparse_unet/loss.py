"""ELEPHANT's segmentation loss on sparse labels (Sugawara 2022, doi:10.7554/eLife.69380), written for whole batches."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

CENTRE, LIKELY_BACKGROUND = 2, 3
SMOOTH_WIDTH, SMOOTH_SIGMA = 5, 8.0


def segmentation_loss(
    log_probability: Tensor, target: Tensor, weights: Tensor, shares: tuple[float, float, float]
) -> dict[str, Tensor]:
    """Weighted NLL and centre Dice on labelled pixels, plus smoothness of the centre map on all pixels.

    Each crop counts the same, however many of its pixels are labelled. A crop without a labelled pixel adds smoothness
    only and one without a centre has no Dice term, so every value is finite for every target.

    Args:
        log_probability: Log-probabilities of background, outer and centre, (B, 3, Y, X).
        target: Classes 0, 1, 2, or 3 for likely background, or -1 for not labelled, int64 (B, Y, X).
        weights: Weights of background, outer, centre and likely background in the NLL, (4,).
        shares: Weights of NLL, Dice and smoothness in the sum; ELEPHANT's are 1/7, 5/7, 1/7.

    Returns:
        Scalars "nll", "dice", "smooth" and their weighted sum "loss".
    """
    nll = _nll(log_probability, target, weights)
    centre = log_probability[:, CENTRE].exp()
    dice = _centre_dice(centre, target)
    smooth = (centre - _smoothed(centre)).abs().mean()
    return {
        "loss": shares[0] * nll + shares[1] * dice + shares[2] * smooth,
        "nll": nll,
        "dice": dice,
        "smooth": smooth,
    }


def _nll(log_probability: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    labelled = target >= 0
    weight = weights[target.clamp(min=0)] * labelled
    classes = torch.where(target == LIKELY_BACKGROUND, 0, target).clamp(min=0)
    picked = log_probability.gather(1, classes[:, None])[:, 0]
    # A pixel without weight must not turn an infinite log-probability into NaN: select, do not multiply.
    picked = torch.where(weight > 0, picked, torch.zeros_like(picked))
    per_crop = -(weight * picked).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
    return _mean_of(per_crop, labelled.any(2).any(1))


def _centre_dice(centre: Tensor, target: Tensor) -> Tensor:
    labelled = ((target >= 0) & (target != LIKELY_BACKGROUND)).to(centre.dtype)
    truth = (target == CENTRE).to(centre.dtype)
    found = centre * labelled
    overlap = (found * truth).sum((1, 2))
    total = (found * found).sum((1, 2)) + truth.sum((1, 2))
    return _mean_of(1 - 2 * overlap / total.clamp(min=1e-6), truth.any(2).any(1))


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values; 0 where none is chosen."""
    weight = chosen.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)


def _smoothed(centre: Tensor) -> Tensor:
    """The centre map after half-resolution Gaussian smoothing, (B, Y, X)."""
    offset = torch.arange(SMOOTH_WIDTH, dtype=centre.dtype, device=centre.device) - SMOOTH_WIDTH // 2
    line = torch.exp(-((offset / SMOOTH_SIGMA) ** 2) / 2)
    kernel = torch.outer(line, line)
    kernel = (kernel / kernel.sum())[None, None]
    half = F.conv2d(centre[:, None], kernel, stride=2, padding=SMOOTH_WIDTH // 2)
    full = F.interpolate(half, size=centre.shape[-2:], mode="nearest")
    return F.conv2d(full, kernel, padding=SMOOTH_WIDTH // 2)[:, 0]
