"""Cellpose as a backend: what the trainer's worker process calls."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import torch
from torch.nn.utils import get_total_norm

from cellsparse_cellpose.config import Config, resolve
from cellsparse_cellpose.export import EXPORTS
from cellsparse_cellpose.importing import STOCK_PERCENTILES, import_model
from cellsparse_cellpose.initial_model import adopt
from cellsparse_cellpose.loss import masked_loss
from cellsparse_cellpose.model import (
    CellposeModel,
    build_network,
    find_device,
    half_precision,
    open_model,
    open_network,
    versions,
)
from cellsparse_cellpose.sampler import Sampler
from cellsparse_torch.data_parallel import Together, own_gpu
from cellsparse_trainer.config.schedule import learning_rate
from cellsparse_trainer.data.prefetch import Batches
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.data.target_cache import find_disk_cache
from cellsparse_trainer.distributed.ranks import ALONE, Ranks
from cellsparse_trainer.processes.failures import not_finite

__all__ = [
    "EXPORTS",
    "NAME",
    "STOCK_PERCENTILES",
    "CellposeTraining",
    "adopt",
    "create",
    "devices",
    "import_model",
    "open_model",
    "resolve",
    "versions",
]

NAME = "cellpose"
STATE_FILE = "training.pt"


def devices() -> list[str]:
    """Return the devices found, such as "cpu" or "cuda:0 NVIDIA A100"."""
    return ["cpu"] + [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]


def create(
    config: Config, train: Sequence[Sample], device: str, start: Path | None = None, ranks: Ranks = ALONE
) -> "CellposeTraining":
    """Build network, optimizer and sampler; with the weights of a model's folder, if one is given.

    Raises:
        InvalidArgument: No image has a labelled cell, or the device is missing.
    """
    place = own_gpu(find_device(device), ranks)  # first: what is missing is said before any image is read
    sampler = Sampler(config, train, ranks, find_disk_cache())
    return CellposeTraining(config, sampler, Together(ranks, place, config.plan.gradient_format), place, start)


class CellposeTraining:
    """A training in progress."""

    def __init__(
        self,
        config: Config,
        sampler: Sampler,
        together: Together,
        device: torch.device,
        start: Path | None = None,
    ) -> None:
        self._config = config
        self._together = together
        self._sampler = sampler
        self.batches: Batches = sampler
        self._device = device
        self._half = half_precision(config.plan.precision, device)
        self._network = build_network(config) if start is None else open_network(start)
        self._network.diam_mean.data.fill_(config.mean_diameter)
        self._network.diam_labels.data.fill_(sampler.diameter)
        self._network.to(device)
        self._joined = together.joined(self._network)
        plan = config.plan
        weights = self._network.parameters()
        self._optimizer: torch.optim.Optimizer
        if config.optimizer == "sgd":
            self._optimizer = torch.optim.SGD(
                weights, plan.learning_rate, momentum=0.9, weight_decay=plan.weight_decay, fused=True
            )
        else:
            self._optimizer = torch.optim.AdamW(weights, plan.learning_rate, weight_decay=plan.weight_decay, fused=True)

    def train_step(self, step: int) -> dict[str, float]:
        """Do one optimizer step on batch `step` (from 0).

        Returns:
            "loss", and its parts "flow" and "cellprob".

        Raises:
            FloatingPointError: The loss or its gradient is not finite; the weights are as they were before the step.
        """
        batch = self.batches.batch(step)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._config.plan, step)
        self._network.train()
        image = torch.from_numpy(batch.image).to(self._device, memory_format=torch.channels_last)
        label = torch.from_numpy(batch.label).to(self._device)
        flow = torch.from_numpy(batch.flow).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            output = self._joined(image)[0]
        weights = self._sampler.background_weight, self._config.likely_background
        losses = masked_loss(output.float(), label, flow, *weights, total=self._together.total)
        values = self._together.sums(losses)
        if not isfinite(values["loss"]):
            raise not_finite(values["loss"], step)
        self._optimizer.zero_grad()
        self._together.backward(losses["loss"])
        gradients = [weight.grad for weight in self._network.parameters() if weight.grad is not None]
        if not isfinite(get_total_norm(gradients)):
            raise not_finite(values["loss"], step)
        self._optimizer.step()
        return values

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state; the rest follows from settings, data and step."""
        state = {"network": self._network.state_dict(), "optimizer": self._optimizer.state_dict()}
        torch.save(state, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        state = torch.load(folder / STATE_FILE, map_location=self._device, weights_only=True)
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])

    def model(self) -> CellposeModel:
        """Return the current weights as a model, which shares them."""
        return CellposeModel(self._network, self._config, self._sampler.diameter)
