"""One training step, and saving and loading a training, for every backend that uses torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from cellsparse_torch.averaged_weights import AveragedWeights
from cellsparse_torch.compiled import compiled
from cellsparse_torch.data_parallel import DataParallel
from cellsparse_torch.devices import half_precision
from cellsparse_torch.feed import Feed, Tensors
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.config.schedule import learning_rate
from cellsparse_trainer.data.prefetch import Batches
from cellsparse_trainer.processes.failures import not_finite

STATE_FILE = "training.pt"
"""What `save` writes: the state dicts of "network" and "optimizer", and of "average" where weights are averaged."""

N = TypeVar("N", bound=nn.Module)


def saved_weights(folder: Path) -> dict[str, Tensor]:
    """Return the state dict that a model takes of what `TorchTraining.save` wrote, on the CPU: averaged, if any are.

    Raises:
        FileNotFoundError: The folder holds none.
    """
    state = _read_state(folder, "cpu")
    return dict(state.get("average", state["network"]))


def _read_state(folder: Path, device: torch.device | str) -> dict[str, Any]:
    """Return what `TorchTraining.save` wrote; release 0.1.0 called the U-Net's network "net"."""
    state: dict[str, Any] = torch.load(folder / STATE_FILE, map_location=device, weights_only=True)
    return state if "network" in state else {"network": state.pop("net"), **state}


class TorchTraining(ABC, Generic[N]):
    """A training in progress: network, optimizer and the source of batches.

    Args:
        network: What is trained; moved to the device of `parallel`.
        batches: Draws the batches.
        plan: What all backends share.
        parallel: The processes that train together.
        average_decay: Share of the averaged weights that a step keeps, 0 to below 1 (see `AveragedWeights`); 0: models
            get the weights of the last step.

    Raises:
        InvalidArgument: The plan asks for bfloat16 and the device has none, or for a compiled step and there is no
            compiler.
    """

    def __init__(
        self, network: N, batches: Batches, plan: Plan, parallel: DataParallel, average_decay: float = 0.0
    ) -> None:
        self.batches = batches
        self.network = network
        self._plan = plan
        self._parallel = parallel
        self._half = half_precision(plan.precision, parallel.device)
        network.to(parallel.device)
        self._average = AveragedWeights(network, average_decay) if average_decay else None
        wrapped = parallel.wrap(network)
        self._run = compiled(wrapped, self.device) if plan.compile_step else wrapped
        self._feed = Feed(self.device, self.contents, ahead=plan.pinned_prefetch)
        self._optimizer = self.make_optimizer(network.parameters())

    @abstractmethod
    def make_optimizer(self, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of the network's weights."""

    def contents(self, batch: Any) -> Mapping[str, Any]:
        """Return what a batch holds, by name; arrays among it are brought to the device."""
        return dict(vars(batch))

    @abstractmethod
    def loss(self, batch: Tensors) -> dict[str, Tensor]:
        """Return the losses of this process' crops, on the device, by name; "loss" is minimised.

        They are shares of the losses of all processes' crops: they divide by counts that `total` adds up.
        """

    def forward(self, images: Tensor) -> Any:
        """Run the network on images on the device, in the number format of the training."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            return self._run(images)

    @property
    def half_on_cpu(self) -> bool:
        """Whether models of this training predict in bfloat16: on CPUs, where it trains in it."""
        return self._half and self.device.type == "cpu"

    @property
    def model_network(self) -> N:
        """The network that models get: the one with averaged weights, if there is one."""
        return self.network if self._average is None else self._average.network

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self._parallel.device

    def total(self, values: Tensor, /) -> Tensor:
        """Return the sum of all processes' values, without gradient."""
        return self._parallel.total(values)

    def train_step(self, step: int) -> dict[str, float]:
        """Do one optimizer step on batch `step` (from 0) and return the losses by name.

        Raises:
            FloatingPointError: The loss or its gradient is not finite; the weights are as they were before the step.
        """
        batch = self._feed.take(self.batches, step)
        self.network.train()
        self._optimizer.zero_grad()
        losses = self.loss(batch)
        self._parallel.backward(losses["loss"])
        if step + 1 < self._plan.steps:
            self._feed.prepare(self.batches, step + 1)  # before anything waits for the device
        values = self._parallel.sums(losses)
        if not isfinite(values["loss"]):
            raise not_finite(values["loss"], step)
        gradients = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
        if not isfinite(get_total_norm(gradients)):
            raise not_finite(values["loss"], step)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._plan, step)
        self._optimizer.step()
        if self._average is not None:
            self._average.update(self.network, step)
        return values

    def save(self, folder: Path) -> None:
        """Write weights, averages and optimizer state; the rest follows from settings, data and step."""
        state = {"network": self.network.state_dict(), "optimizer": self._optimizer.state_dict()}
        if self._average is not None:
            state["average"] = self._average.state_dict()
        torch.save(state, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; the next step then gives the same result as without the interruption."""
        state = _read_state(folder, self.device)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state.get("average", state["network"]))
