"""Settings of a StarDist training, resolved from a preset and what the person gave. Imports no framework."""

from dataclasses import dataclass
from typing import Any, ClassVar

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import BackendConfig
from cellsparse_trainer.config.presets import make_plan, overlay

GRIDS = (1, 2, 4)
INITIALIZATIONS = ("glorot", "he")
DIST_LOSSES = ("absolute", "overlap")

_STOCK: dict[str, Any] = {
    "initialization": "glorot",
    "dist_loss": "absolute",
    "dist_focus": 1.0,
    "scale_range": 0.0,
    "outline_rim": 0.0,
    "fit_sizes": False,
    "average_rays": False,
    "edge_margin": 2,
    "gradient_limit": 0.0,
    "refine_outlines": False,
    "test_flips": False,
}
"""As stock StarDist trains: PAPER, and stacks, where the settings below are not measured."""
_TRUE_BORDERS: dict[str, Any] = {
    "initialization": "he",
    "dist_loss": "overlap",
    "dist_focus": 2.0,
    "scale_range": 0.25,
    "outline_rim": 0.0,
    "fit_sizes": True,
    "average_rays": True,
    "edge_margin": 1,
    "gradient_limit": 5.0,
    "refine_outlines": True,
    "test_flips": True,
}
"""What FAST does on images to learn sizes and borders sooner."""
_PAPER_STACKS_OWN: dict[str, Any] = {"n_rays": 96, "unet_depth": 2}
"""Stock StarDist3D's defaults; the paper trained StarDist on 2D images only."""
_PAPER_STACKS: dict[str, Any] = {"batch_size": 2, "crop_size": 96, "crop_depth": 48}
"""Patches of stock StarDist's 3D example."""
_FAST_STACKS_OWN: dict[str, Any] = {
    "likely_background": 0.2,
    "n_rays": 64,
    "unet_depth": 2,
    "unet_filters": 16,
    "features": 64,
    "dist_rate": 10.0,
    **_STOCK,
}
_FAST_STACKS: dict[str, Any] = {
    "batch_size": 4,
    "crop_size": 32,
    "crop_depth": 16,
    "steps": 600,
    "most_steps": 2000,
    "learning_rate": 2e-3,
    "warmup_steps": 20,
    "copy_paste": 0,
}


@dataclass(frozen=True, kw_only=True)
class Config(BackendConfig):
    """Everything that decides what a StarDist training does.

    Raises:
        ValueError: A value is outside its range, or the crop does not fit the network.
    """

    TOOL: ClassVar = "StarDist"
    MOST_CHANNELS: ClassVar = 16
    SWITCHES: ClassVar = ("compile_step",)
    RANGES: ClassVar = {
        "n_rays": (8, 128),
        "unet_depth": (1, 5),
        "unet_filters": (4, 128),
        "features": (4, 512),
        "background_share": (0, 1),
        "likely_background": (0, 1),
        "jitter": (0, 1),
        "dist_focus": (0, 4),
        "scale_range": (0, 1),
        "outline_rim": (0, 10),
        "edge_margin": (0, 2),
        "gradient_limit": (0, 1000),
    }
    CHOICES: ClassVar = {"grid": GRIDS, "grid_z": GRIDS, "initialization": INITIALIZATIONS, "dist_loss": DIST_LOSSES}
    OPTIONAL: ClassVar = ("grid_z",)
    RENAMED: ClassVar = {"dark_share": "likely_background"}

    n_rays: int
    """Rays per cell, 8 to 128."""
    grid: int
    """Pixels per grid point and axis: 1, 2 or 4; of stacks: along Y and X."""
    unet_depth: int
    """Times the U-Net halves the image after the grid, 1 to 5."""
    unet_filters: int
    """Channels of the U-Net's first level, 4 to 128; each level below has twice as many."""
    features: int
    """Channels of the convolution before the outputs, 4 to 512."""
    dist_rate: float
    """Learning rate of the distance layer relative to the others, above 0 to 100."""
    dist_start: bool
    """True: the distance layer starts at the mean ray length of the labelled cells instead of 0."""
    anchor_cells: bool
    """True: crops visit the labelled cells in turn; False: the images in turn, at a random labelled pixel."""
    background_share: float
    """Share of crops around a background pixel, 0 to 1."""
    likely_background: float
    """Share of a crop's likely background that counts as background, 0 to 1; 0: it is left out."""
    jitter: float
    """How far the crop's middle may lie from its labelled pixel, 0 to 1; at 1 the pixel may be at the crop's edge."""
    initialization: str = "glorot"
    """One of `INITIALIZATIONS`: what fresh weights are drawn from."""
    dist_loss: str = "absolute"
    """One of `DIST_LOSSES`: what the loss of the distances measures (see `loss.dist_loss`)."""
    dist_focus: float = 1.0
    """Power of the target probability that a pixel's distances weigh with in the loss, 0 to 4."""
    scale_range: float = 0.0
    """Sizes along Y and X change by a factor of 1 / (1 + this) to 1 + this, 0 to 1; 0: they do not."""
    outline_rim: float = 0.0
    """Pixels outside the outline of a labelled cell that have probability 0 where nobody labelled them, 0 to 10."""
    fit_sizes: bool = False
    """True: the finished model's rays grow or shrink by one factor so that labelled cells are found at their size."""
    average_rays: bool = False
    """True: all grid points of a cell decide where its outline is (see `ray_averages`); images only."""
    edge_margin: int = 2
    """Grid points along the image's edge where no star is taken from, 0 to 2; 2 in stock StarDist; images only."""
    gradient_limit: float = 0.0
    """Longer gradients are shortened to this length, 0 to 1000; 0: they are not."""
    refine_outlines: bool = False
    """True: outlines move to where the image's brightness shows them (see `outline_refinement`); images only."""
    test_flips: bool = False
    """Whether outputs are means over an image and its mirror image along both axes: twice the time; images only."""
    grid_z: int | None = None
    """Planes per grid point: 1, 2 or 4; None: not a training on stacks, or not yet measured (see `spacing.fitted`)."""
    anisotropy: tuple[float, float, float] | None = None
    """How much shorter than the longest a cell is along Z, Y and X in pixels, each from 1; None as for `grid_z`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anisotropy is not None and (len(self.anisotropy) != 3 or not min(self.anisotropy) >= 1):
            raise ValueError(f"anisotropy is {self.anisotropy}; allowed: three numbers, each from 1.")
        if not 0 < self.dist_rate <= 100:
            raise ValueError(f"dist_rate is {self.dist_rate}; allowed: above 0 to 100.")
        unit = self.grid * 2**self.unet_depth
        if self.plan.crop_size % unit:
            raise ValueError(
                f"crop_size is {self.plan.crop_size}; grid {self.grid} and unet_depth {self.unet_depth} "
                f"allow multiples of {unit}."
            )
        unit = (self.grid_z or 1) * 2**self.unet_depth
        if self.plan.crop_depth is not None and self.plan.crop_depth % unit:
            raise ValueError(
                f"crop_depth is {self.plan.crop_depth}; grid {self.grid_z or 1} along z and unet_depth "
                f"{self.unet_depth} allow multiples of {unit}."
            )

    @property
    def crop(self) -> tuple[int, ...]:
        """Pixels of a crop along each axis, YX or ZYX."""
        size, depth = self.plan.crop_size, self.plan.crop_depth
        return (size, size) if depth is None else (depth, size, size)

    @property
    def grids(self) -> tuple[int, ...]:
        """Pixels per grid point along each axis, YX or ZYX."""
        return (self.grid, self.grid) if self.plan.crop_depth is None else (self.grid_z or 1, self.grid, self.grid)


def resolve(settings: trainer_pb2.TrainingSettings, items: int, stacks: bool = False) -> Config:
    """Fill a preset with the settings that are given.

    Args:
        settings: What was asked for.
        items: Number of training items; decides the steps of PAPER.
        stacks: Whether the items are stacks (axes ZYX).

    Raises:
        ValueError: A value is outside its range.
    """
    paper = settings.preset == trainer_pb2.PRESET_PAPER
    plan, own = _paper(items) if paper else _fast()
    if stacks:
        plan |= _PAPER_STACKS if paper else _FAST_STACKS
        own |= _PAPER_STACKS_OWN if paper else _FAST_STACKS_OWN
    return Config(plan=make_plan(settings, plan), **overlay(own, settings.stardist))


def _paper(items: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sugawara 2023: stock StarDist, 100 epochs of n // 8 + 1 steps at a constant learning rate."""
    epoch = items // 8 + 1
    own = {
        "n_rays": 32,
        "grid": 2,
        "unet_depth": 3,
        "unet_filters": 32,
        "features": 128,
        "dist_rate": 1.0,
        "dist_start": False,
        "anchor_cells": False,
        "background_share": 0.1,  # stock StarDist takes 9 of 10 patches around foreground
        "likely_background": 0.0,
        "jitter": 1.0,
        **_STOCK,
    }
    plan = {
        "steps": 100 * epoch,
        "batch_size": 8,
        "crop_size": 224,
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
        "lower_percentile": 0.0,
        "upper_percentile": 100.0,
        "validate_every": 10 * epoch,
        "checkpoint_every": 10 * epoch,
        "schedule": "constant",
        "warmup_steps": 0,
        "last_rate": 0.0,
    }
    return plan, own


def _fast() -> tuple[dict[str, Any], dict[str, Any]]:
    """Small crops around labelled cells in turn, a learning rate that rises and falls."""
    own = {
        "n_rays": 32,
        "grid": 2,
        "unet_depth": 3,
        "unet_filters": 32,
        "features": 128,
        "dist_rate": 5.0,
        "dist_start": True,
        "anchor_cells": True,
        "background_share": 0.3,
        "likely_background": 0.6,
        "jitter": 0.5,
        **_TRUE_BORDERS,
    }
    plan = {
        "steps": 450,
        "most_steps": 5000,
        "batch_size": 9,
        "crop_size": 64,
        "learning_rate": 2e-3,
        "weight_decay": 0.0,
        "lower_percentile": 1.0,
        "upper_percentile": 99.8,
        "validate_every": 100,
        "checkpoint_every": 100,
        "schedule": "cosine",
        "warmup_steps": 40,
        "last_rate": 0.0,
        "copy_paste": 1,
    }
    return plan, own
