"""Settings of a Cellpose-SAM training: presets, ranges, and their form at rest."""

from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import BackendConfig
from cellsparse_trainer.config.presets import make_plan, overlay

TRAINABLE = ("readout", "lora", "all")

CROP = 256
"""Side in pixels of what the network takes: its position embedding has this size."""
ENCODER = (24, 1024, 16)
"""Depth, width and heads of stock Cellpose-SAM's encoder, a ViT-L."""
ARCHITECTURE = ("encoder_depth", "encoder_width", "encoder_heads")
"""Settings that decide the network's shape."""

PAPER_EPOCHS = 100
PAPER_BATCH = 1
FAST_RATES = {"readout": 1e-3, "lora": 5e-4, "all": 2e-5}
"""Peak learning rates: the fewer weights change, the further each may go."""


@dataclass(frozen=True, kw_only=True)
class Config(BackendConfig):
    """Everything that decides how Cellpose-SAM trains and segments.

    Raises:
        ValueError: A value is outside its range.
    """

    TOOL: ClassVar = "Cellpose-SAM"
    MOST_CHANNELS: ClassVar = 3
    FIXED_CHANNELS: ClassVar = False
    SWITCHES: ClassVar = ("pinned_prefetch",)
    RANGES: ClassVar = {
        "lora_rank": (1, 64),
        "layer_drop": (0, 0.9),
        "scale_range": (0, 1.5),
        "flow_threshold": (0, 10),
        "cellprob_threshold": (-6, 6),
        "min_size": (0, 100_000),
        "background_share": (0, 0.95),
        "likely_background": (0, 1),
        "encoder_depth": (1, 32),
        "encoder_width": (8, 2048),
        "encoder_heads": (1, 32),
    }
    CHOICES: ClassVar = {"trainable": TRAINABLE}

    trainable: str
    """One of `TRAINABLE`: neck and readout alone, with low-rank updates of the encoder's attention, or all weights."""
    lora_rank: int
    """Rank of the low-rank updates, 1 to 64."""
    layer_drop: float
    """Share of the crops that skip the encoder's last block, 0 to 0.9; blocks before it are skipped less often."""
    scale_range: float
    """Width of the augmentation's scale range around 1, 0 to 1.5."""
    flow_threshold: float
    """Mask recovery: largest flow error kept, 0 to 10; 0 keeps all."""
    cellprob_threshold: float
    """Mask recovery: smallest cell probability logit, -6 to 6."""
    min_size: int
    """Mask recovery: cells of fewer pixels are dropped, 0 to 100,000."""
    background_share: float
    """Share of the pixels that is taken to be background, 0 to 0.95; 0 leaves the labels' weight as it is."""
    likely_background: float
    """Weight of unlabelled pixels that are likely background in the cell probability's loss, 0 to 1."""
    stitch_threshold: float
    """Stacks: smallest intersection over union that makes cells of neighbouring planes one cell, above 0 to 1."""
    encoder_depth: int
    """Blocks of the encoder, 1 to 32."""
    encoder_width: int
    """Channels of the encoder, 8 to 2,048, a multiple of `encoder_heads`."""
    encoder_heads: int
    """Heads of the encoder's attention, 1 to 32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan.crop_size != CROP:
            raise ValueError(
                f"crop_size is {self.plan.crop_size}; allowed: {CROP}, which Cellpose-SAM's encoder takes."
            )
        if not 0 < self.stitch_threshold <= 1:
            raise ValueError(f"stitch_threshold is {self.stitch_threshold}; allowed: above 0 to 1.")
        if self.encoder_width % self.encoder_heads:
            raise ValueError(
                f"encoder_width is {self.encoder_width}; allowed: multiples of encoder_heads, {self.encoder_heads}."
            )

    @property
    def encoder(self) -> tuple[int, int, int]:
        """Depth, width and heads of the encoder."""
        return self.encoder_depth, self.encoder_width, self.encoder_heads


def resolve(settings: trainer_pb2.TrainingSettings, items: int, stacks: bool = False) -> Config:
    """Fill a preset with the settings that are given.

    Args:
        settings: What was asked for.
        items: Number of training images, from 1; of stacks, the number of planes that are trained on.
        stacks: Whether the items are stacks (axes ZYX): training is on their planes, so `crop_depth` is refused.

    Raises:
        ValueError: A combination of settings is not allowed.
    """
    if stacks and settings.HasField("crop_depth"):
        raise ValueError(
            f"crop_depth is {settings.crop_depth}; allowed: not set, Cellpose-SAM trains on single planes."
        )
    paper = settings.preset == trainer_pb2.PRESET_PAPER
    own = overlay(_PAPER if paper else _FAST, settings.cellpose_sam)
    batch_size = settings.batch_size if settings.HasField("batch_size") else PAPER_BATCH
    plan = _paper(ceil(max(1, items) / batch_size)) if paper else _fast(own["trainable"])
    return Config(plan=make_plan(settings, plan), **own)


_THRESHOLDS = {
    "lora_rank": 8,
    "scale_range": 0.5,
    "flow_threshold": 0.4,
    "cellprob_threshold": 0.0,
    "min_size": 15,
    "stitch_threshold": 0.25,
    **dict(zip(ARCHITECTURE, ENCODER, strict=True)),
}
_PAPER = {
    **_THRESHOLDS,
    "trainable": "all",
    "layer_drop": 0.4,
    "background_share": 0.0,
    "likely_background": 0.0,
}
_FAST = {
    **_THRESHOLDS,
    "trainable": "lora",
    "layer_drop": 0.0,
    "background_share": 0.8,
    "likely_background": 1.0,
}


def _paper(epoch: int) -> dict[str, Any]:
    """Sugawara 2023's length and normalisation with stock Cellpose 4's training; an epoch has `epoch` steps."""
    return {
        "steps": PAPER_EPOCHS * epoch,
        "batch_size": PAPER_BATCH,
        "crop_size": CROP,
        "learning_rate": 1e-5,
        "weight_decay": 0.1,
        "lower_percentile": 0.0,
        "upper_percentile": 100.0,
        "validate_every": 5 * epoch,
        "checkpoint_every": 100,
        "schedule": "stairs",
        "warmup_steps": 10 * epoch,
        "last_rate": 0.0,
    }


def _fast(trainable: str) -> dict[str, Any]:
    """Few steps from weights that know cells already."""
    return {
        "steps": 150,
        "most_steps": 600,
        "batch_size": 2,
        "crop_size": CROP,
        "learning_rate": FAST_RATES[trainable],
        "weight_decay": 0.1 if trainable == "all" else 1e-2,
        "lower_percentile": 1.0,
        "upper_percentile": 99.8,
        "validate_every": 50,
        "checkpoint_every": 50,
        "schedule": "cosine",
        "warmup_steps": 20,
        "last_rate": 0.0,
    }
