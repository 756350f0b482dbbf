"""One training step of the U-Net."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cellsparse_torch.data_parallel import DataParallel
from cellsparse_torch.device_crops import recoloured, take
from cellsparse_torch.devices import choose_device
from cellsparse_torch.feed import Tensors
from cellsparse_torch.training import TorchTraining, saved_weights
from cellsparse_trainer.config.schedule import learning_rate
from cellsparse_trainer.data.prefetch import Batches
from cellsparse_unet.config import Config
from cellsparse_unet.data import UncutBatch
from cellsparse_unet.instances import Thresholds
from cellsparse_unet.loss import segmentation_loss
from cellsparse_unet.model import UnetModel, loaded
from cellsparse_unet.network import UNet, read_model


class UnetTraining(TorchTraining[UNet]):
    """A U-Net training in progress.

    Args:
        config: All settings, fitted to the spacing of the items.
        batches: Draws the batches.
        network: Weights to begin with.
        parallel: The processes that train together.
        thresholds: Thresholds to begin with; None: the defaults.
    """

    def __init__(
        self,
        config: Config,
        batches: Batches,
        network: UNet,
        parallel: DataParallel,
        thresholds: Thresholds | None = None,
    ) -> None:
        self._config = config
        self._thresholds = thresholds
        super().__init__(network, batches, config.plan, parallel, config.average_decay)
        likely = config.class_weights[0] * config.likely_background
        touching = config.class_weights[1] * config.border_weight
        self._weights = torch.tensor([*config.class_weights, likely, touching], device=self.device)

    def make_optimizer(self, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return Adam with decoupled weight decay."""
        plan = self._config.plan
        return torch.optim.AdamW(weights, lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True)

    def contents(self, batch: Any) -> Mapping[str, Any]:
        """Return what a batch holds, by name."""
        if isinstance(batch, UncutBatch):
            return {"classes": batch.classes, "contrast": batch.contrast, **batch.windows}
        images, classes = batch
        return {"images": images, "classes": classes}

    def loss(self, batch: Tensors) -> dict[str, Tensor]:
        """Return "loss" and its parts "nll", "dice" and "smooth"."""
        images = self._crops(batch) if self._config.plan.device_augmentation else batch["images"]
        log_probability: Tensor = self.forward(images)
        shares = self._config.loss_shares
        return segmentation_loss(log_probability.float(), batch["classes"], self._weights, shares, total=self.total)

    def _crops(self, batch: Tensors) -> Tensor:
        """Return the images (B, C, ...) of crops that are not cut yet."""
        images = take(batch, tuple(batch["classes"].shape[1:]))
        mean = images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
        factor = batch["contrast"].reshape(-1, *[1] * (images.ndim - 1))
        return recoloured(mean + (images - mean) * factor, batch)

    def train_step(self, step: int) -> dict[str, float]:
        """Do one optimizer step on batch `step` (from 0) and return the losses and the "learning_rate".

        Raises:
            FloatingPointError: The loss or its gradient is not finite; the weights are as they were before the step.
        """
        return super().train_step(step) | {"learning_rate": learning_rate(self._config.plan, step)}

    def save(self, folder: Path) -> None:
        """Write weights, averages and optimizer state, and the settings that `open_checkpoint` needs."""
        super().save(folder)
        self.model().write_config(folder)

    def model(self) -> UnetModel:
        """Return the current weights as a model, which shares them, with thresholds not yet tuned, without flips."""
        return UnetModel(self.model_network, self._config, self._thresholds, flips=False, half=self.half_on_cpu)


def open_checkpoint(folder: Path, device: str) -> UnetModel:
    """Open the weights that `UnetTraining.save` wrote, with thresholds not yet tuned, without flips.

    Args:
        folder: Holds the state and `config.json`.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The files do not make a model, or the device is missing.
        FileNotFoundError: A file is missing.
    """
    target = choose_device(device)
    return loaded(read_model(folder, saved_weights(folder)), target, flips=False)
