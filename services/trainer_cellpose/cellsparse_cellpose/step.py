"""One training step of Cellpose."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from cellpose.resnet_torch import CPnet
from torch import Tensor, nn
from torch.nn import functional

from cellsparse_cellpose.config import Config
from cellsparse_cellpose.data import Sampler, UncutBatch
from cellsparse_cellpose.model import CellposeModel, loaded
from cellsparse_cellpose.network import read_model
from cellsparse_torch.data_parallel import DataParallel
from cellsparse_torch.device_crops import recoloured, take
from cellsparse_torch.devices import choose_device
from cellsparse_torch.feed import Tensors
from cellsparse_torch.flows.loss import masked_loss
from cellsparse_torch.training import TorchTraining, saved_weights


class CellposeTraining(TorchTraining[CPnet]):
    """A Cellpose training in progress.

    Args:
        config: All settings.
        sampler: Draws the batches, and knows the cells' diameter and the background's weight.
        network: Weights to begin with.
        parallel: The processes that train together.
    """

    def __init__(self, config: Config, sampler: Sampler, network: CPnet, parallel: DataParallel) -> None:
        self._config = config
        self._sampler = sampler
        network.diam_mean.data.fill_(config.mean_diameter)
        network.diam_labels.data.fill_(sampler.diameter)
        super().__init__(network, sampler, config.plan, parallel, config.average_decay)

    def make_optimizer(self, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer that the settings name."""
        rate, decay = self._config.plan.learning_rate, self._config.plan.weight_decay
        if self._config.optimizer == "sgd":
            return torch.optim.SGD(weights, rate, momentum=0.9, weight_decay=decay, fused=True)
        return torch.optim.AdamW(weights, rate, weight_decay=decay, fused=True)

    def contents(self, batch: Any) -> Mapping[str, Any]:
        """Return what a batch holds, by name."""
        if isinstance(batch, UncutBatch):
            return {"label": batch.label, "turn": batch.turn, **batch.windows}
        return super().contents(batch)

    def loss(self, batch: Tensors) -> dict[str, Tensor]:
        """Return "loss", and its parts "flow" and "cellprob"."""
        label = batch["label"]
        image, flow = self._crops(batch) if self._config.plan.device_augmentation else (batch["image"], batch["flow"])
        image = image.contiguous(memory_format=torch.channels_last)
        output: Tensor = self.forward(image)[0]
        weights = self._sampler.background_weight, self._config.likely_background
        return masked_loss(output.float(), label, flow, *weights, total=self.total)

    def _crops(self, batch: Tensors) -> tuple[Tensor, Tensor]:
        """Return images (B, 2, S, S) and flows (B, 2, S, S) of crops that are not cut yet."""
        size = self._config.plan.crop_size
        planes = take(batch, (size, size))
        image = recoloured(planes[:, :-2], batch)
        return functional.pad(image, (0, 0, 0, 0, 0, 2 - image.shape[1])), _turned(planes[:, -2:], batch["turn"])

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state, and the settings that `open_checkpoint` needs."""
        super().save(folder)
        self.model().write_config(folder)

    def model(self) -> CellposeModel:
        """Return the current weights, averaged if the settings say so, as a model, which shares them."""
        return CellposeModel(self.model_network, self._config, self._sampler.diameter, half=self.half_on_cpu)


def _turned(flow: Tensor, turn: Tensor) -> Tensor:
    """Return flows (B, 2, S, S), each crop's directions multiplied with its matrix (B, 2, 2)."""
    return (turn[:, :, :, None, None] * flow[:, None]).sum(2)


def open_checkpoint(folder: Path, device: str) -> CellposeModel:
    """Open the weights that `CellposeTraining.save` wrote.

    Args:
        folder: Holds the state and `config.json`.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The device is missing.
        FileNotFoundError: A file is missing.
        ValueError: The files do not belong together.
    """
    target = choose_device(device)
    return loaded(read_model(folder, saved_weights(folder)), target)
