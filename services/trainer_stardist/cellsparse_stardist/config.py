"""Settings of a StarDist training, resolved from a preset and what the person gave. Imports no framework."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.plan import Plan

GRIDS = (1, 2, 4)
_DEVICES = {
    trainer_pb2.DEVICE_UNSPECIFIED: "auto",
    trainer_pb2.DEVICE_AUTO: "auto",
    trainer_pb2.DEVICE_CPU: "cpu",
    trainer_pb2.DEVICE_CUDA: "cuda",
}
_PROTO_NAMES = {"validate_every": "validate_every_steps", "checkpoint_every": "checkpoint_every_steps"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides what a StarDist training does.

    Raises:
        ValueError: A value is outside its range, or the crop does not fit the network.
    """

    plan: Plan
    """What all backends share."""
    n_rays: int
    """Rays per cell, 8 to 128."""
    grid: int
    """Pixels per grid point and axis: 1, 2 or 4."""
    unet_depth: int
    """Times the U-Net halves the image after the grid, 1 to 5."""
    unet_filters: int
    """Channels of the U-Net's first level, 4 to 128; each level below has twice as many."""
    features: int
    """Channels of the convolution before the outputs, 4 to 512."""
    warmup_steps: int
    """Steps over which the learning rate rises linearly, 0 to 1,000,000; 0: none."""
    cosine: bool
    """True: after the warm-up the learning rate falls to 0 by a cosine over the rest of the steps."""
    dist_rate: float
    """Learning rate of the distance layer relative to the others, above 0 to 100."""
    dist_start: bool
    """True: the distance layer starts at the mean ray length of the labelled cells instead of 0."""
    anchor_cells: bool
    """True: crops visit the labelled cells in turn; False: the images in turn, at a random labelled pixel."""
    background_share: float
    """Share of crops around a background pixel, 0 to 1."""
    dark_share: float
    """Share of the dark unlabelled pixels in a crop that count as background, 0 to 1; needs labelled background."""
    jitter: float
    """How far the crop's middle may lie from its labelled pixel, 0 to 1; at 1 the pixel may be at the crop's edge."""

    def __post_init__(self) -> None:
        ranges = {
            "n_rays": (8, 128),
            "unet_depth": (1, 5),
            "unet_filters": (4, 128),
            "features": (4, 512),
            "warmup_steps": (0, 1_000_000),
            "background_share": (0, 1),
            "dark_share": (0, 1),
            "jitter": (0, 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: {low} to {high}.")
        if self.grid not in GRIDS:
            raise ValueError(f"grid is {self.grid}; allowed: 1, 2 or 4.")
        if not 0 < self.dist_rate <= 100:
            raise ValueError(f"dist_rate is {self.dist_rate}; allowed: above 0 to 100.")
        unit = self.grid * 2**self.unet_depth
        if self.plan.crop_size % unit:
            raise ValueError(
                f"crop_size is {self.plan.crop_size}; grid {self.grid} and unet_depth {self.unet_depth} "
                f"allow multiples of {unit}."
            )

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step (from 0)."""
        peak = self.plan.learning_rate
        if step < self.warmup_steps:
            return peak * (step + 1) / self.warmup_steps
        if not self.cosine:
            return peak
        done = (step - self.warmup_steps) / max(self.plan.steps - self.warmup_steps, 1)
        return peak * 0.5 * (1 + math.cos(math.pi * done))

    def to_json(self) -> str:
        """Return all settings as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Config":
        """Read what `to_json` wrote.

        Raises:
            ValueError: The text is not JSON, or a value is missing, unknown or outside its range.
        """
        try:
            values = json.loads(text)
            return Config(**{**values, "plan": Plan(**values["plan"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"This is no StarDist configuration: {error}.") from error


def resolve(settings: trainer_pb2.TrainingSettings, items: int) -> Config:
    """Fill a preset with the settings that are given.

    Args:
        settings: What was asked for.
        items: Number of training items; decides the steps of PAPER.

    Raises:
        ValueError: A value is outside its range.
    """
    own, plan = _paper(items) if settings.preset == trainer_pb2.PRESET_PAPER else _fast()
    plan["channel"] = None
    for name in plan:
        field = _PROTO_NAMES.get(name, name)
        if settings.HasField(field):
            plan[name] = getattr(settings, field)
    for name in ("n_rays", "grid", "unet_depth", "unet_filters", "dark_share"):
        if settings.stardist.HasField(name):
            own[name] = getattr(settings.stardist, name)
    return Config(plan=Plan(**plan, seed=settings.seed, device=_DEVICES[settings.device]), **own)


def _paper(items: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sugawara 2023: stock StarDist, 100 epochs of n // 8 + 1 steps at a constant learning rate."""
    epoch = items // 8 + 1
    own = {
        "n_rays": 32,
        "grid": 2,
        "unet_depth": 3,
        "unet_filters": 32,
        "features": 128,
        "warmup_steps": 0,
        "cosine": False,
        "dist_rate": 1.0,
        "dist_start": False,
        "anchor_cells": False,
        "background_share": 0.1,  # stock StarDist takes 9 of 10 patches around foreground
        "dark_share": 0.0,
        "jitter": 1.0,
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
    }
    return own, plan


def _fast() -> tuple[dict[str, Any], dict[str, Any]]:
    """Small crops around labelled cells in turn, a learning rate that rises and falls."""
    own = {
        "n_rays": 32,
        "grid": 2,
        "unet_depth": 3,
        "unet_filters": 32,
        "features": 128,
        "warmup_steps": 20,
        "cosine": True,
        "dist_rate": 10.0,
        "dist_start": True,
        "anchor_cells": True,
        "background_share": 0.3,
        "dark_share": 0.2,
        "jitter": 0.5,
    }
    plan = {
        "steps": 500,
        "batch_size": 8,
        "crop_size": 64,
        "learning_rate": 2e-3,
        "weight_decay": 0.0,
        "lower_percentile": 1.0,
        "upper_percentile": 99.8,
        "validate_every": 100,
        "checkpoint_every": 100,
    }
    return own, plan
