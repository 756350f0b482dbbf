"""Averages of a network's weights over the last steps of its training.

The weights of single steps jump about a good solution; their exponential moving average lies nearer to it (Polyak &
Juditsky 1992, doi:10.1137/0330046; Tarvainen & Valpola 2017, arXiv:1703.01780).
"""

import copy
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)

WARM_UP = 10
"""The first average holds about this fraction of the steps so far, so that it soon forgets the random weights."""


class AveragedWeights(Generic[N]):
    """The exponential moving average of a network's weights, as a network of its own.

    The running means and variances of batch normalisation are averaged as weights are: they are nearly those of the
    averaged weights. What is no floating-point number, such as the count of batches, is taken from the network.

    The average is a pure function of the weights after each step and of the steps' numbers, so all processes of a
    training have the same one.

    Args:
        network: What is trained; it is copied, not changed.
        decay: Share of the average that a step keeps in the long run, 0 to below 1.
    """

    def __init__(self, network: N, decay: float) -> None:
        self.network: N = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: N, step: int) -> None:
        """Take in the weights after a step (from 0)."""
        averages, values = _tensors(self.network), _tensors(network)
        weights = [name for name, value in values.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [averages[name] for name in weights],
            [values[name] for name in weights],
            1 - decay_of(self._decay, step),
        )
        for name in values.keys() - set(weights):
            averages[name].copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights by name."""
        return dict(self.network.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up averaged weights, or those of a network whose average begins there."""
        self.network.load_state_dict(state)


def decay_of(decay: float, step: int) -> float:
    """Return the share of the average that a step (from 0) keeps: less in the beginning.

    Args:
        decay: The share in the long run.
        step: Number of the step.
    """
    return min(decay, (1 + step) / (WARM_UP + step))


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, as `state_dict` does, without leaving the network's memory."""
    return {name: value.detach() for name, value in network.state_dict(keep_vars=True).items()}
