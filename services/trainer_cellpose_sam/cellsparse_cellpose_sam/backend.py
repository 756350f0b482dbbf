"""The Cellpose-SAM backend: what the trainer's worker and inference processes call."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from cellsparse_cellpose_sam.config import ENCODER, Config
from cellsparse_cellpose_sam.data import Sampler
from cellsparse_cellpose_sam.export import EXPORTS
from cellsparse_cellpose_sam.importing import STOCK_PERCENTILES, import_model
from cellsparse_cellpose_sam.model import open_model
from cellsparse_cellpose_sam.network import build_network, read_model
from cellsparse_cellpose_sam.step import CellposeSamTraining, open_checkpoint
from cellsparse_common.errors import InvalidArgument
from cellsparse_torch.data_parallel import DataParallel, pin_gpu
from cellsparse_torch.devices import choose_device, devices, has_bfloat16
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.data.target_cache import find_disk_cache
from cellsparse_trainer.distributed.ranks import ALONE, Ranks

__all__ = [
    "EXPORTS",
    "STOCK_PERCENTILES",
    "CellposeSamTraining",
    "create",
    "devices",
    "gains_from_bfloat16",
    "has_bfloat16",
    "import_model",
    "open_checkpoint",
    "open_model",
    "versions",
]

gains_from_bfloat16 = has_bfloat16


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide the numbers, by name."""
    return {name: version(name) for name in ("cellpose", "segment-anything", "torch", "numpy")}


def create(
    config: Config, train: Sequence[Sample], device: str, start: Path | None = None, ranks: Ranks = ALONE
) -> CellposeSamTraining:
    """Build network, optimizer and sampler.

    Args:
        config: All settings.
        train: Training images; those without a labelled pixel are left out.
        device: "auto", "cpu" or "cuda".
        start: Folder of a model whose weights to begin with; None: fresh weights, for other sizes than stock's only.
        ranks: This process' place among those that train together.

    Raises:
        InvalidArgument: There are no weights to begin with, no image has a labelled cell, or the device is missing.
    """
    chosen = pin_gpu(choose_device(device), ranks)  # first: a missing device is reported before any image is read
    if start is None and config.encoder == ENCODER:
        raise InvalidArgument(
            "Cellpose-SAM trains from weights that you bring: import a Cellpose-SAM model file, and give the imported "
            "model as initial_model.",
            "settings.initial_model",
        )
    sampler = Sampler(train, config, ranks, find_disk_cache())
    network = build_network(config) if start is None else read_model(start).network
    return CellposeSamTraining(config, sampler, network, DataParallel(ranks, chosen, config.plan.gradient_format))
