"""Which weights a training changes: neck and readout, low-rank updates of the attention (LoRA), or all.

LoRA (Hu 2021, arXiv:2106.09685) keeps a weight matrix W as it is and learns an update of low rank, W + up @ down. After
the training both are one matrix again, so that a model knows nothing of it.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from cellpose.vit import CPSAM
from torch import Tensor, nn
from torch.nn import functional

from cellsparse_cellpose_sam.config import Config

_FIXED = ("W2", "diam_", "encoder.patch_embed.")
"""Beginnings of the names of weights that never change: no loss depends on them, or stock Cellpose keeps them fixed."""
_READOUT = ("encoder.neck.", "out.")


class LowRankLinear(nn.Module):
    """A linear layer that keeps its weights, and an update of low rank that is learned.

    Args:
        base: The layer; its weights stop learning.
        rank: Rank of the update, from 1. The update is 0 at first.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as linear layers begin

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's answer with the update."""
        update = functional.linear(functional.linear(x, self.down), self.up)
        return cast(Tensor, self.base(x)) + update


def choose_trainable(network: CPSAM, config: Config) -> None:
    """Make a network ready for a training: only the weights that the settings name ask for a gradient.

    Args:
        network: Changed in place; with "lora" its attention layers become `LowRankLinear`.
        config: Says which; its seed decides the updates' first weights.
    """
    for name, weight in network.named_parameters():
        chosen = not name.startswith(_FIXED) if config.trainable == "all" else name.startswith(_READOUT)
        weight.requires_grad_(chosen)
    if config.trainable != "lora":
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.plan.seed)
        for block in network.encoder.blocks:
            block.attn.qkv = LowRankLinear(block.attn.qkv, config.lora_rank)
            block.attn.proj = LowRankLinear(block.attn.proj, config.lora_rank)


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with stock Cellpose's names: every low-rank update is added to its weights.

    Args:
        state: State dict of a network, with updates or without; not changed.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        layer, _, last = name.rpartition(".")
        if last in ("down", "up"):
            continue
        if layer.endswith(".base"):
            layer = layer.removesuffix(".base")
            if last == "weight":
                value = value + state[f"{layer}.up"] @ state[f"{layer}.down"]
            name = f"{layer}.{last}"
        found[name] = value
    return found
