"""The U-Net after ELEPHANT behind the trainers' common contract."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from cellsparse_trainer.samples import Sample
from cellsparse_unet import devices as device_list
from cellsparse_unet.config import Config, resolve
from cellsparse_unet.data import Sampler
from cellsparse_unet.export import EXPORTS
from cellsparse_unet.loss import segmentation_loss
from cellsparse_unet.model import UNet, initialise
from cellsparse_unet.predictor import Predictor, open_predictor

__all__ = ["EXPORTS", "NAME", "Config", "Training", "create", "devices", "open_model", "resolve", "versions"]

NAME = "unet"
STATE = "training.pt"


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter, by name."""
    return {name: version(name) for name in ("cellsparse-unet", "torch", "numpy", "scikit-image")}


def devices() -> list[str]:
    """Return the devices found, such as "cpu" or "cuda:0 NVIDIA A100"."""
    return device_list.found()


def create(config: Config, train: Sequence[Sample], device: str) -> "Training":
    """Builds network, optimizer and sampler.

    Args:
        config: All settings.
        train: Training items; the ones without a labelled pixel are left out.
        device: "auto", "cpu" or "cuda".

    Returns:
        The training before its first step.

    Raises:
        InvalidArgument: No item has a labelled cell, or the device is missing.
    """
    return Training(config, Sampler(train, config), device_list.choose(device))


def open_model(folder: Path, device: str) -> Predictor:
    """Opens what `Predictor.export` wrote.

    Args:
        folder: Holds `unet.pt` and `config.json`.
        device: "auto", "cpu" or "cuda".

    Returns:
        The model with its thresholds.

    Raises:
        InvalidArgument: The files do not make a model, or the device is missing.
        FileNotFoundError: A file is missing.
    """
    return open_predictor(folder, device_list.choose(device))


class Training:
    """A training in progress: network, optimizer and the source of batches."""

    def __init__(self, config: Config, sampler: Sampler, device: torch.device) -> None:
        self._config = config
        self._sampler = sampler
        self._device = device
        self._net = UNet(base_channels=config.base_channels)
        initialise(self._net, config.plan.seed)
        self._net.to(device)
        self._optimizer = torch.optim.AdamW(
            self._net.parameters(), lr=config.plan.learning_rate, weight_decay=config.plan.weight_decay
        )
        background = config.class_weights[0] * config.likely_background
        self._weights = torch.tensor([*config.class_weights, background], device=device)

    def train_step(self, step: int) -> dict[str, float]:
        """Does one optimizer step.

        Args:
            step: Number of the step, from 0; decides batch and learning rate.

        Returns:
            "loss" and its parts "nll", "dice" and "smooth", and the "learning_rate".

        Raises:
            FloatingPointError: The loss is not finite; the weights are as they were before the step.
        """
        images, classes = self._sampler.batch(step)
        self._net.train()
        self._optimizer.zero_grad(set_to_none=True)
        losses = segmentation_loss(
            self._net(torch.from_numpy(images).to(self._device)),
            torch.from_numpy(classes).to(self._device),
            self._weights,
            self._config.loss_shares,
        )
        if not torch.isfinite(losses["loss"]):
            raise FloatingPointError(f"The loss of step {step} is {losses['loss'].item()}.")
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        rate = self._config.rate_at(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return {name: value.item() for name, value in losses.items()} | {"learning_rate": rate}

    def save(self, folder: Path) -> None:
        """Writes weights and optimizer state.

        Args:
            folder: An existing folder.
        """
        torch.save({"net": self._net.state_dict(), "optimizer": self._optimizer.state_dict()}, folder / STATE)

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote; the next step then gives what it would have given without the break.

        Args:
            folder: Where `save` wrote.
        """
        state = torch.load(folder / STATE, map_location=self._device, weights_only=True)
        self._net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])

    def model(self) -> Predictor:
        """Returns the current weights as a model that shares them, with thresholds not yet tuned."""
        return Predictor(self._net, self._config)
