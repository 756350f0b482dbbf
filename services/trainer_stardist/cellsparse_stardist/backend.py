"""The StarDist backend: what the trainer's worker and inference processes call."""

from collections.abc import Sequence
from pathlib import Path

from cellsparse_common.errors import InvalidArgument
from cellsparse_stardist.config import Config
from cellsparse_stardist.cpu_bfloat16 import cpu_has_bfloat16
from cellsparse_stardist.data import Sampler
from cellsparse_stardist.data_parallel import DataParallel, pin_gpu
from cellsparse_stardist.export import EXPORTS
from cellsparse_stardist.framework import devices, tf, use_device, versions
from cellsparse_stardist.importing import STOCK_PERCENTILES, import_model
from cellsparse_stardist.model import open_model
from cellsparse_stardist.network import build_network, read_model
from cellsparse_stardist.step import StardistTraining, mean_ray, open_checkpoint
from cellsparse_trainer.config.precision import BFLOAT16, FLOAT32, choose
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import ALONE, Ranks

__all__ = [
    "EXPORTS",
    "STOCK_PERCENTILES",
    "StardistTraining",
    "create",
    "devices",
    "has_bfloat16",
    "import_model",
    "open_checkpoint",
    "open_model",
    "versions",
]


def create(
    config: Config, train: Sequence[Sample], device: str, start: Path | None = None, ranks: Ranks = ALONE
) -> StardistTraining:
    """Build network, optimizer and sampler.

    Args:
        config: All settings.
        train: Training items.
        device: "auto", "cpu" or "cuda".
        start: Folder of a model whose weights and thresholds to begin with; None: fresh weights.
        ranks: This process' place among those that train together.

    Raises:
        InvalidArgument: No cell is labelled, or the device is missing or has no bfloat16 and was asked for it.
    """
    chosen = use_device(device)
    half = choose(config.plan.precision, chosen, capable=_capable(config.plan.precision, device)) == BFLOAT16
    if chosen == "cpu":
        # Not on a GPU: there some operations of the network have no deterministic form and would fail.
        tf.config.experimental.enable_op_determinism()
    parallel = None
    if not ranks.alone:
        pin_gpu(ranks)
        parallel = DataParallel(config.plan.gradient_format)
    tf.random.set_seed(config.plan.seed % 2**31)  # determinism demands one; the weights come from `build_network`
    sampler = Sampler(train, config, ranks)
    if sampler.cells == 0:
        raise InvalidArgument(f"None of the {len(train)} training images has a labelled cell; label at least one.")
    config = sampler.config
    ray = mean_ray(sampler, config.plan.steps) if config.dist_start and start is None else 0.0
    stock = build_network(config, ray)
    if start is not None:
        given = read_model(start)
        stock.keras_model.set_weights(given.stock.keras_model.get_weights())
        stock.thresholds = given.thresholds.to_dict()
    return StardistTraining(config, sampler, stock, parallel, half)


def has_bfloat16(device: str) -> bool:
    """Return whether a device, "auto", "cpu" or "cuda", computes in bfloat16 in hardware; GPUs train in float32."""
    return use_device(device) == "cpu" and cpu_has_bfloat16()


def _capable(precision: str, device: str) -> bool:
    return precision != FLOAT32 and has_bfloat16(device)
