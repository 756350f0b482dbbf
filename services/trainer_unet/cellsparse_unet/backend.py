"""The U-Net backend: what the trainer's worker and inference processes call."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from cellsparse_torch.data_parallel import DataParallel, pin_gpu
from cellsparse_torch.devices import choose_device, devices, has_bfloat16
from cellsparse_trainer.config.precision import AUTO, FLOAT32
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import ALONE, Ranks
from cellsparse_unet.config import Config
from cellsparse_unet.data import Sampler
from cellsparse_unet.export import EXPORTS
from cellsparse_unet.importing import STOCK_PERCENTILES, import_model
from cellsparse_unet.initial_model import adopt_thresholds
from cellsparse_unet.model import open_model
from cellsparse_unet.network import build_network, read_model
from cellsparse_unet.spacing import fitted
from cellsparse_unet.step import UnetTraining, open_checkpoint

__all__ = [
    "EXPORTS",
    "STOCK_PERCENTILES",
    "UnetTraining",
    "create",
    "devices",
    "gains_from_bfloat16",
    "has_bfloat16",
    "import_model",
    "open_checkpoint",
    "open_model",
    "versions",
]


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide the numbers, by name."""
    return {name: version(name) for name in ("cellsparse-unet", "torch", "numpy", "scikit-image")}


def gains_from_bfloat16(device: str) -> bool:
    """Return whether a training takes bfloat16 by itself: on GPUs. On a CPU, borders came out worse on one image.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The device is missing.
    """
    return choose_device(device).type != "cpu" and has_bfloat16(device)


def create(
    config: Config, train: Sequence[Sample], device: str, start: Path | None = None, ranks: Ranks = ALONE
) -> UnetTraining:
    """Build network, optimizer and sampler.

    Args:
        config: All settings.
        train: Training items; those without a labelled pixel are left out.
        device: "auto", "cpu" or "cuda".
        start: Folder of a model whose weights and thresholds to begin with; None: fresh weights.
        ranks: This process' place among those that train together.

    Raises:
        InvalidArgument: No item has a labelled cell, items have other axes than `config` is for, the depth of crops
            does not fit the distance of planes, or the device is missing.
    """
    chosen = pin_gpu(choose_device(device), ranks)  # first: a missing device is reported before any image is read
    config = fitted(config, train)
    if config.plan.precision == AUTO and not gains_from_bfloat16(device):
        config = replace(config, plan=replace(config.plan, precision=FLOAT32))
    thresholds = None
    if start is None:
        network = build_network(config)
    else:
        stored = read_model(start)
        network = stored.network
        config = replace(config, flat_levels=stored.config.flat_levels)
        thresholds = adopt_thresholds(config, stored.thresholds)
    sampler = Sampler(train, config, ranks)
    return UnetTraining(config, sampler, network, DataParallel(ranks, chosen, config.plan.gradient_format), thresholds)
