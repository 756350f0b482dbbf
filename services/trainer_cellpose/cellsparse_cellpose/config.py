"""Settings of a Cellpose training: presets, ranges, and their form at rest."""

from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import BackendConfig
from cellsparse_trainer.config.plan import GPU_SWITCHES
from cellsparse_trainer.config.presets import make_plan, overlay

OPTIMIZERS = ("sgd", "adamw")
SAMPLINGS = ("image", "cell")
RESCALES = ("image", "dataset")

CHANNELS = (32, 64, 128, 256)
"""Stock Cellpose's feature channels per level."""

PAPER_EPOCHS = 100
PAPER_BATCH = 8
FAST_STEPS = 360
FAST_MOST_STEPS = 1400
FAST_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Config(BackendConfig):
    """Everything that decides how Cellpose trains and segments.

    Raises:
        ValueError: A value is outside its range.
    """

    TOOL: ClassVar = "Cellpose"
    MOST_CHANNELS: ClassVar = 2
    FIXED_CHANNELS: ClassVar = False
    SWITCHES: ClassVar = GPU_SWITCHES
    RANGES: ClassVar = {
        "mean_diameter": (5, 200),
        "scale_range": (0, 1.5),
        "background_share": (0, 0.95),
        "likely_background": (0, 1),
        "flow_threshold": (0, 10),
        "cellprob_threshold": (-6, 6),
        "min_size": (0, 100_000),
        "average_decay": (0, 0.9999),
        "size_passes": (0, 5),
        "rim_width": (0, 10),
    }
    CHOICES: ClassVar = {"optimizer": OPTIMIZERS, "sampling": SAMPLINGS, "rescale": RESCALES}

    mean_diameter: float
    """Diameter in pixels to which images are rescaled, 5 to 200."""
    scale_range: float
    """Width of the augmentation's scale range around 1, 0 to 1.5."""
    optimizer: str
    """One of `OPTIMIZERS`: SGD with momentum 0.9, or AdamW."""
    sampling: str
    """One of `SAMPLINGS`: "image" takes every image once per epoch and crops anywhere, "cell" crops around cells."""
    rescale: str
    """One of `RESCALES`: bring each image's own labelled cells to the mean diameter, or those of the whole dataset."""
    background_share: float
    """Share of the pixels that is taken to be background, 0 to 0.95. Labelled background weighs more in the cell
    probability's loss until it and likely background have this share of what counts; 0 leaves it as it is."""
    flow_threshold: float
    """Mask recovery: largest flow error kept, 0 to 10; 0 keeps all."""
    cellprob_threshold: float
    """Mask recovery: smallest cell probability logit, -6 to 6."""
    min_size: int
    """Mask recovery: cells of fewer pixels are dropped, 0 to 100,000."""
    likely_background: float = 0.0
    """Weight of unlabelled pixels that are likely background in the cell probability's loss, 0 to 1."""
    stitch_threshold: float = 0.25
    """Stacks: smallest intersection over union that makes cells of neighbouring planes one cell, above 0 to 1."""
    average_decay: float = 0.0
    """Share of the averaged weights that a step keeps, 0 to 0.9999; 0: models get the weights of the last step."""
    size_passes: int = 0
    """How often prediction may measure the cells that it found in an image and segment it anew with them brought to
    the mean diameter, 0 to 5; 0 takes the dataset's diameter for every image."""
    rim_width: float = 0.0
    """Width in pixels of the rim around a labelled cell that counts as likely background, 0 to 10; below 1 there is
    none."""
    refine_outlines: bool = False
    """True: outlines move to where the image's brightness shows them (see `outline_refinement`); images only."""
    channels: tuple[int, ...] = CHANNELS
    """Feature channels per level, 2 levels or more, the last 256; only the default opens in the stock tool."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.stitch_threshold <= 1:
            raise ValueError(f"stitch_threshold is {self.stitch_threshold}; allowed: above 0 to 1.")
        # Cellpose's tiling holds style vectors of 256 values, one per channel of the last level.
        if len(self.channels) < 2 or min(self.channels) < 1 or self.channels[-1] != 256:
            raise ValueError(f"channels is {self.channels}; allowed: two levels or more, the last of 256 channels.")


def resolve(settings: trainer_pb2.TrainingSettings, items: int, stacks: bool = False) -> Config:
    """Fill a preset with the settings that are given.

    Args:
        settings: What was asked for.
        items: Number of training images, from 1; of stacks, the number of planes that are trained on.
        stacks: Whether the items are stacks (axes ZYX): Cellpose trains on their planes, so `crop_depth` is refused.

    Raises:
        ValueError: A combination of settings is not allowed.
    """
    if stacks and settings.HasField("crop_depth"):
        raise ValueError(f"crop_depth is {settings.crop_depth}; allowed: not set, Cellpose trains on single planes.")
    if stacks and settings.copy_paste:
        raise ValueError(f"copy_paste is {settings.copy_paste} with stacks; allowed: 0.")
    paper = settings.preset == trainer_pb2.PRESET_PAPER
    batch_size = settings.batch_size if settings.HasField("batch_size") else (PAPER_BATCH if paper else FAST_BATCH)
    epoch = ceil(max(1, items) / batch_size)
    plan, own = _paper(epoch) if paper else _fast()
    if stacks and not paper:
        own["rescale"] = "dataset"  # prediction takes one diameter for all planes of a stack
        own["refine_outlines"] = False
        plan["copy_paste"] = 0
    return Config(plan=make_plan(settings, plan), **overlay(own, settings.cellpose))


def _paper(epoch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sugawara 2023's protocol with stock Cellpose's training; an epoch has `epoch` steps."""
    plan = {
        "steps": PAPER_EPOCHS * epoch,
        "batch_size": PAPER_BATCH,
        "crop_size": 224,
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "lower_percentile": 0.0,
        "upper_percentile": 100.0,
        "validate_every": 5 * epoch,
        "checkpoint_every": 100,
        "schedule": "stairs",
        "warmup_steps": 10 * epoch,
        "last_rate": 0.0,
    }
    own = {
        "mean_diameter": 30.0,
        "scale_range": 0.5,
        "optimizer": "sgd",
        "sampling": "image",
        "rescale": "image",
        "background_share": 0.0,
        "likely_background": 0.0,
        "flow_threshold": 0.4,
        "cellprob_threshold": 0.0,
        "min_size": 15,
        "stitch_threshold": 0.25,
        "average_decay": 0.0,
        "size_passes": 0,
        "rim_width": 0.0,
        "refine_outlines": False,
        "channels": CHANNELS,
    }
    return plan, own


def _fast() -> tuple[dict[str, Any], dict[str, Any]]:
    """Small crops around labelled cells and a learning rate that rises and falls."""
    plan = {
        "steps": FAST_STEPS,
        "most_steps": FAST_MOST_STEPS,
        "batch_size": FAST_BATCH,
        "crop_size": 64,
        "learning_rate": 2e-3,
        "weight_decay": 1e-2,
        "lower_percentile": 1.0,
        "upper_percentile": 99.8,
        "validate_every": 90,
        "checkpoint_every": 90,
        "schedule": "cosine",
        "warmup_steps": 20,
        "last_rate": 0.0,
        "copy_paste": 1,
    }
    own = {
        "mean_diameter": 20.0,
        "scale_range": 0.8,
        "optimizer": "adamw",
        "sampling": "cell",
        "rescale": "image",
        "background_share": 0.8,
        "likely_background": 1.0,
        "flow_threshold": 0.4,
        "cellprob_threshold": 0.0,
        "min_size": 15,
        "stitch_threshold": 0.25,
        "average_decay": 0.98,
        "size_passes": 1,
        "rim_width": 2.0,
        "refine_outlines": True,
        "channels": CHANNELS,
    }
    return plan, own
