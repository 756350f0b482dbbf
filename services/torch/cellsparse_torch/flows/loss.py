"""Cellpose's loss on labelled pixels only."""

import torch
from torch import Tensor
from torch.nn import functional

from cellsparse_torch.data_parallel import Total, local_only
from cellsparse_trainer.data.background import LIKELY

FLOW_FACTOR = 5.0
"""What Cellpose multiplies unit flows with."""


def masked_loss(
    output: Tensor,
    label: Tensor,
    flow: Tensor,
    background_weight: float = 1.0,
    likely_weight: float = 0.0,
    *,
    total: Total = local_only,
) -> dict[str, Tensor]:
    """Return half the squared error of the flows plus the binary cross entropy of the cell probability.

    As `cellpose.train._loss_fn_seg`, but means are taken over labelled pixels; other pixels have no gradient.
    Likely background is background in the cross entropy only: there is no cell there, and flows are undefined.

    Args:
        output: Flows (y, x) times `FLOW_FACTOR` and the cell probability's logit, shape (B, 3, Y, X).
        label: `LIKELY` (-2) likely background, -1 not labelled, 0 background, 1 cell, shape (B, Y, X).
        flow: Unit flows (y, x), zero outside cells, shape (B, 2, Y, X).
        background_weight: Weight of a background pixel in the cross entropy relative to a cell's pixel.
        likely_weight: Weight of a pixel of likely background in the cross entropy relative to a cell's pixel, from 0.
        total: Adds up counts of pixels over all processes that train together; the losses are then these crops' shares.

    Returns:
        The scalars "loss" (their sum), "flow" and "cellprob"; zero if no pixel is labelled.
    """
    weight = (label >= 0).to(output.dtype)
    balance = torch.where(label == 0, background_weight * weight, weight)
    balance = torch.where(label == LIKELY, likely_weight, balance)
    labelled, balanced = total(torch.stack([weight.sum(), balance.sum()])).clamp(min=1.0)
    squared = (output[:, :2] - FLOW_FACTOR * flow).square().mean(1)
    entropy = functional.binary_cross_entropy_with_logits(output[:, 2], (label > 0).to(output.dtype), reduction="none")
    flow_loss = (squared * weight).sum() / labelled / 2
    cellprob_loss = (entropy * balance).sum() / balanced
    return {"loss": flow_loss + cellprob_loss, "flow": flow_loss, "cellprob": cellprob_loss}
