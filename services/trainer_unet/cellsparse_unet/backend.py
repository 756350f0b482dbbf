"""The U-Net after ELEPHANT behind the trainers' common contract."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from math import isfinite
from pathlib import Path

import torch
from torch.nn.utils import get_total_norm

from cellsparse_torch import devices as device_list
from cellsparse_torch.data_parallel import Together, own_gpu
from cellsparse_trainer.config.schedule import learning_rate
from cellsparse_trainer.data.prefetch import Batches
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import ALONE, Ranks
from cellsparse_trainer.processes.failures import not_finite
from cellsparse_unet.config import Config, resolve
from cellsparse_unet.data import Sampler
from cellsparse_unet.export import EXPORTS
from cellsparse_unet.importing import STOCK_PERCENTILES, import_model
from cellsparse_unet.initial_model import adopt, fitted_cut
from cellsparse_unet.instances import Cut
from cellsparse_unet.loss import segmentation_loss
from cellsparse_unet.model import Predictor, open_network, open_predictor
from cellsparse_unet.network import UNet, initialise
from cellsparse_unet.spacing import fitted

__all__ = [
    "EXPORTS",
    "NAME",
    "STOCK_PERCENTILES",
    "Config",
    "Training",
    "adopt",
    "create",
    "devices",
    "import_model",
    "open_model",
    "resolve",
    "versions",
]

NAME = "unet"
STATE = "training.pt"


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter, by name."""
    return {name: version(name) for name in ("cellsparse-unet", "torch", "numpy", "scikit-image")}


def devices() -> list[str]:
    """Return the devices found, such as "cpu" or "cuda:0 NVIDIA A100"."""
    return device_list.found()


def create(
    config: Config, train: Sequence[Sample], device: str, start: Path | None = None, ranks: Ranks = ALONE
) -> "Training":
    """Builds network, optimizer and sampler.

    Args:
        config: All settings.
        train: Training items; the ones without a labelled pixel are left out.
        device: "auto", "cpu" or "cuda".
        start: Folder of a model whose weights and thresholds to begin with; None: fresh weights.
        ranks: This process' place among those that train together.

    Returns:
        The training before its first step.

    Raises:
        InvalidArgument: No item has a labelled cell, items have other axes than `config` is for, the depth of crops
            does not fit the distance of planes, or the device is missing.
    """
    place = own_gpu(device_list.choose(device), ranks)  # first: what is missing is said before any image is read
    config = fitted(config, train)
    if start is not None:
        config = replace(config, flat_levels=open_network(start)[1].flat_levels)
    return Training(
        config, Sampler(train, config, ranks), Together(ranks, place, config.plan.gradient_format), place, start
    )


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
        self.batches: Batches = sampler
        self._device = device
        self._half = device_list.half_precision(config.plan.precision, device)
        self._cut: Cut | None = None
        if start is None:
            self._net = UNet(base_channels=config.base_channels, dims=config.dims, flat_levels=config.flat_levels)
            initialise(self._net, config.plan.seed)
        else:
            self._net = open_network(start)[0]
            self._cut = fitted_cut(config, open_predictor(start, torch.device("cpu")).cut)
        self._net.to(device)
        self._joined = together.joined(self._net)
        self._optimizer = torch.optim.AdamW(
            self._net.parameters(), lr=config.plan.learning_rate, weight_decay=config.plan.weight_decay, fused=True
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
            FloatingPointError: The loss or its gradient is not finite; the weights are as they were before the step.
        """
        images, classes = self.batches.batch(step)
        self._net.train()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            log_probability = self._joined(torch.from_numpy(images).to(self._device))
        losses = segmentation_loss(
            log_probability.float(),
            torch.from_numpy(classes).to(self._device),
            self._weights,
            self._config.loss_shares,
            total=self._together.total,
        )
        values = self._together.sums(losses)
        if not isfinite(values["loss"]):
            raise not_finite(values["loss"], step)
        self._together.backward(losses["loss"])
        gradients = [weight.grad for weight in self._net.parameters() if weight.grad is not None]
        if not torch.isfinite(get_total_norm(gradients)):
            raise not_finite(values["loss"], step)
        rate = learning_rate(self._config.plan, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return values | {"learning_rate": rate}

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
        return Predictor(self._net, self._config, self._cut)
