"""Cellpose's loss on labelled pixels only."""

import torch
from torch import Tensor
from torch.nn import functional

FLOW_FACTOR = 5.0
"""What Cellpose multiplies unit flows with."""


def masked_loss(output: Tensor, label: Tensor, flow: Tensor, background_weight: float = 1.0) -> dict[str, Tensor]:
    """Half the squared error of the flows plus the binary cross entropy of the cell probability.

    As `cellpose.train._loss_fn_seg`, but means are taken over labelled pixels; other pixels have no gradient.

    Args:
        output: Flows (y, x) times `FLOW_FACTOR` and the cell probability's logit, shape (B, 3, Y, X).
        label: -1 not labelled, 0 background, 1 cell, shape (B, Y, X).
        flow: Unit flows (y, x), zero outside cells, shape (B, 2, Y, X).
        background_weight: Weight of a background pixel in the cross entropy relative to a cell's pixel.

    Returns:
        The scalars "loss" (their sum), "flow" and "cellprob"; zero if no pixel is labelled.
    """
    weight = (label >= 0).to(output.dtype)
    labelled = weight.sum().clamp(min=1.0)
    squared = (output[:, :2] - FLOW_FACTOR * flow).square().mean(1)
    entropy = functional.binary_cross_entropy_with_logits(output[:, 2], (label > 0).to(output.dtype), reduction="none")
    flow_loss = (squared * weight).sum() / labelled / 2
    balance = torch.where(label == 0, background_weight * weight, weight)
    cellprob_loss = (entropy * balance).sum() / balance.sum().clamp(min=1.0)
    return {"loss": flow_loss + cellprob_loss, "flow": flow_loss, "cellprob": cellprob_loss}
