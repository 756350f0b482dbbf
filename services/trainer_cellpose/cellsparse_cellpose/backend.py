"""Cellpose as a backend: what the trainer's worker process calls."""

from collections.abc import Sequence
from math import cos, isfinite, pi
from pathlib import Path

import torch

from cellsparse_cellpose.config import Config, resolve
from cellsparse_cellpose.export import EXPORTS
from cellsparse_cellpose.loss import masked_loss
from cellsparse_cellpose.model import CellposeModel, build_network, find_device, open_model, versions
from cellsparse_cellpose.sampler import Sampler
from cellsparse_trainer.samples import Sample

__all__ = ["EXPORTS", "NAME", "CellposeTraining", "create", "devices", "open_model", "resolve", "versions"]

NAME = "cellpose"
STATE_FILE = "training.pt"


def devices() -> list[str]:
    """Return the devices found, such as "cpu" or "cuda:0 NVIDIA A100"."""
    return ["cpu"] + [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]


def create(config: Config, train: Sequence[Sample], device: str) -> "CellposeTraining":
    """Build network, optimizer and sampler.

    Raises:
        InvalidArgument: No image has a labelled cell, or the device is missing.
    """
    return CellposeTraining(config, Sampler(config, train), find_device(device))


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step (from 0).

    "steps" is Cellpose's own: 0 in the first epoch, equal rises to the peak in epoch `warmup`, then constant.
    "cosine" rises with every step and falls to nearly 0 at the last one.
    """
    peak = config.plan.learning_rate
    if config.schedule == "steps":
        return peak * min(1.0, step // steps_per_epoch / max(1, config.warmup - 1))
    warmup = min(config.warmup, config.plan.steps // 4)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * (1 + cos(pi * (step - warmup) / max(1, config.plan.steps - warmup))) / 2


class CellposeTraining:
    """A training in progress."""

    def __init__(self, config: Config, sampler: Sampler, device: torch.device) -> None:
        self._config = config
        self._sampler = sampler
        self._device = device
        self._network = build_network(config)
        self._network.diam_labels.data.fill_(sampler.diameter)
        self._network.to(device)
        plan = config.plan
        weights = self._network.parameters()
        self._optimizer: torch.optim.Optimizer
        if config.optimizer == "sgd":
            self._optimizer = torch.optim.SGD(weights, plan.learning_rate, momentum=0.9, weight_decay=plan.weight_decay)
        else:
            self._optimizer = torch.optim.AdamW(weights, plan.learning_rate, weight_decay=plan.weight_decay)

    def train_step(self, step: int) -> dict[str, float]:
        """Do one optimizer step on batch `step` (from 0).

        Returns:
            "loss", and its parts "flow" and "cellprob".

        Raises:
            FloatingPointError: The loss is not finite.
        """
        batch = self._sampler.batch(step)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._config, step, self._sampler.steps_per_epoch)
        self._network.train()
        image = torch.from_numpy(batch.image).to(self._device, memory_format=torch.channels_last)
        label = torch.from_numpy(batch.label).to(self._device)
        flow = torch.from_numpy(batch.flow).to(self._device)
        losses = masked_loss(self._network(image)[0], label, flow, self._sampler.background_weight)
        values = {name: value.item() for name, value in losses.items()}
        if not isfinite(values["loss"]):
            raise FloatingPointError(f"The loss is {values['loss']} at step {step}; try a lower learning rate.")
        self._optimizer.zero_grad()
        torch.autograd.backward(losses["loss"])
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
