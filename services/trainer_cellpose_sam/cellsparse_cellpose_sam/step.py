"""One training step of Cellpose-SAM."""

from collections.abc import Iterable
from pathlib import Path

import torch
from cellpose.vit import CPSAM
from torch import Tensor, nn

from cellsparse_cellpose_sam.config import Config
from cellsparse_cellpose_sam.data import Sampler
from cellsparse_cellpose_sam.model import CellposeSamModel
from cellsparse_cellpose_sam.network import read_model
from cellsparse_cellpose_sam.trainable import choose_trainable, merged
from cellsparse_torch.data_parallel import DataParallel
from cellsparse_torch.devices import choose_device
from cellsparse_torch.feed import Tensors
from cellsparse_torch.flows.loss import masked_loss
from cellsparse_torch.training import TorchTraining, saved_weights


class CellposeSamTraining(TorchTraining[CPSAM]):
    """A Cellpose-SAM training in progress.

    Args:
        config: All settings.
        sampler: Draws the batches, and knows the cells' diameter and the background's weight.
        network: Weights to begin with; changed as `choose_trainable` says.
        parallel: The processes that train together.
    """

    def __init__(self, config: Config, sampler: Sampler, network: CPSAM, parallel: DataParallel) -> None:
        self._config = config
        self._sampler = sampler
        choose_trainable(network, config)
        network.rdrop = config.layer_drop
        network.diam_labels.data.fill_(sampler.diameter)
        super().__init__(network, sampler, config.plan, parallel)

    def make_optimizer(self, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return AdamW, as stock Cellpose 4 has it, for the weights that change."""
        chosen = [weight for weight in weights if weight.requires_grad]
        rate, decay = self._config.plan.learning_rate, self._config.plan.weight_decay
        return torch.optim.AdamW(chosen, rate, weight_decay=decay, fused=True)

    def loss(self, batch: Tensors) -> dict[str, Tensor]:
        """Return "loss", and its parts "flow" and "cellprob"."""
        image, label, flow = batch["image"], batch["label"], batch["flow"]
        # Which blocks are skipped follows from the step, so that a resumed training skips the same ones.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(batch["seed"])
            output: Tensor = self.forward(image)[0]
        weights = self._sampler.background_weight, self._config.likely_background
        return masked_loss(output.float(), label, flow, *weights, total=self.total)

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state, and the settings that `open_checkpoint` needs."""
        super().save(folder)
        self.model().write_config(folder)

    def model(self) -> CellposeSamModel:
        """Return the current weights as a model, which shares them."""
        return CellposeSamModel(self.network, self._config, self._sampler.diameter)


def open_checkpoint(folder: Path, device: str) -> CellposeSamModel:
    """Open the weights that `CellposeSamTraining.save` wrote.

    Args:
        folder: Holds the state and `config.json`.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The device is missing.
        FileNotFoundError: A file is missing.
        ValueError: The files do not belong together.
    """
    target = choose_device(device)
    stored = read_model(folder, merged(saved_weights(folder)))
    return CellposeSamModel(stored.network.to(target), stored.config, stored.diameter)
