"""Settings of a U-Net training: presets, ranges, JSON."""

from dataclasses import dataclass
from typing import Any, ClassVar

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import BackendConfig
from cellsparse_trainer.config.plan import GPU_SWITCHES
from cellsparse_trainer.config.presets import make_plan, overlay

METHODS = ("auto", "ellipse", "watershed")
SHAPES = ("ellipse", "outline")
_PAPER_BORDERS: dict[str, Any] = {
    "loss_shares": (1 / 7, 5 / 7, 1 / 7),
    "target_shape": "ellipse",
    "outline_rim": 0.0,
    "border_weight": 1.0,
    "split_depth": 0.0,
    "average_decay": 0.0,
    "test_flips": False,
    "refine_outlines": False,
}
_TRUE_BORDERS: dict[str, Any] = {
    "loss_shares": (0.5, 0.5, 0.0),
    "target_shape": "outline",
    "outline_rim": 2.0,
    "border_weight": 5.0,
    "split_depth": 1.5,
    "average_decay": 0.99,
    "test_flips": True,
    "refine_outlines": False,
}
"""What FAST does on images to find outlines as they are, in place of the paper's settings."""


@dataclass(frozen=True, kw_only=True)
class Config(BackendConfig):
    """Everything that decides what a U-Net training does.

    Raises:
        ValueError: A value is outside its range.
    """

    TOOL: ClassVar = "U-Net"
    MOST_CHANNELS: ClassVar = 16
    SWITCHES: ClassVar = GPU_SWITCHES
    RANGES: ClassVar = {
        "base_channels": (4, 128),
        "centre_scale": (0.1, 0.9),
        "centre_threshold": (0.05, 0.99),
        "centre_smoothing": (0, 5),
        "likely_background": (0, 1),
        "scale_range": (0, 0.9),
        "rotation": (0, 180),
        "contrast": (0, 1),
        "plane_distance": (0.1, 100),
        "flat_levels": (0, 4),
        "outline_rim": (0, 10),
        "border_weight": (1, 100),
        "split_depth": (0, 10),
        "average_decay": (0, 0.9999),
    }
    CHOICES: ClassVar = {"instance_method": METHODS, "target_shape": SHAPES}
    OPTIONAL: ClassVar = ("centre_threshold", "centre_smoothing")

    base_channels: int
    """Channels of the first level, 4 to 128; 16 is ELEPHANT's network."""
    centre_scale: float
    """Size of the centre relative to the cell's, 0.1 to 0.9."""
    centre_threshold: float | None
    """Smallest centre probability, 0.05 to 0.99; None: until it is tuned 0.6 with "outline" targets, else 0.4."""
    centre_smoothing: float | None
    """Sigma in pixels by which centre probabilities are smoothed before the threshold, 0 to 5; None: 1.5 until it is
    tuned."""
    instance_method: str
    """One of `METHODS`; "auto" is watershed until it is tuned."""
    class_weights: tuple[float, float, float]
    """Weights of background, outer and centre in the loss, above 0."""
    loss_shares: tuple[float, float, float]
    """Weights of NLL, centre Dice and smoothness in the loss, from 0, one of them above."""
    likely_background: float
    """Weight of unlabelled pixels that are likely background, as if labelled, 0 to 1; 0: they are left out."""
    scale_range: float
    """Augmentation: sizes change by a factor of 1 - this to 1 + this, 0 to 0.9."""
    rotation: float
    """Augmentation: largest turn either way in degrees, 0 to 180."""
    flip: bool
    """Augmentation: whether half of the crops are mirrored."""
    contrast: float
    """Augmentation: contrast changes by a factor of 1 - this to 1 + this, 0 to 1."""
    spread: bool
    """True: the labelled pixel a crop is drawn around lies anywhere in it; False: in its middle half."""
    target_shape: str = "ellipse"
    """One of `SHAPES`: what cells are drawn as in the targets."""
    outline_rim: float = 0.0
    """Pixels outside labelled cells that are supervised as not belonging to them, 0 to 10; below 1: none."""
    border_weight: float = 1.0
    """Weight in the loss of a cell's pixels right beside another cell over that of its other outer ones, 1 to 100."""
    split_depth: float = 0.0
    """Pixels, 0 to 10: a centre with a neck that much narrower, on either side, than its parts is split; 0: none is."""
    average_decay: float = 0.0
    """Share of the averaged weights that a step keeps, 0 to 0.9999; 0: models get the weights of the last step."""
    test_flips: bool = False
    """Whether probabilities are means over an image and its mirror images; takes four times as long."""
    refine_outlines: bool = False
    """True: outlines move to where the image's brightness shows them (see `outline_refinement`); images only."""
    plane_distance: float = 1.0
    """Distance of planes over the distance of pixels in a plane, 0.1 to 100; stacks only, from the training items."""
    flat_levels: int = 0
    """Levels of the network, from the first, that keep the number of planes, 0 to 4; stacks only, from the above."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.class_weights) != 3 or min(self.class_weights) <= 0:
            raise ValueError(f"class_weights are {self.class_weights}; allowed: three numbers above 0.")
        if len(self.loss_shares) != 3 or min(self.loss_shares) < 0 or not any(self.loss_shares):
            raise ValueError(f"loss_shares are {self.loss_shares}; allowed: three numbers from 0, one of them above.")

    @property
    def dims(self) -> int:
        """Number of axes of an image: 2 (YX) or 3 (ZYX)."""
        return 2 if self.plan.crop_depth is None else 3


def resolve(settings: trainer_pb2.TrainingSettings, items: int, stacks: bool = False) -> Config:
    """Fill a preset with the settings that are given.

    Args:
        settings: What was asked for.
        items: Number of training items; PAPER's steps are 100 passes over them.
        stacks: Whether the items are stacks (axes ZYX).

    Raises:
        ValueError: A value is outside its range.
    """
    plan, own = _paper(items, stacks) if settings.preset == trainer_pb2.PRESET_PAPER else _fast(stacks)
    return Config(plan=make_plan(settings, plan), **overlay(own, settings.unet))


def _paper(items: int, stacks: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sugawara 2023's protocol: 100 passes over the items, Adam at a constant rate, centres above 0.8.

    The protocol is for images. Batch and crops of stacks are the defaults of ELEPHANT (elephant-server, config.py).
    """
    sizes = {"batch_size": 1, "crop_size": 384, "crop_depth": 16} if stacks else {"batch_size": 8, "crop_size": 224}
    passes = max(1, -(-items // sizes["batch_size"]))
    plan = {
        **sizes,
        "steps": 100 * passes,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "lower_percentile": 0.0,
        "upper_percentile": 100.0,
        "validate_every": 10 * passes,
        "checkpoint_every": 10 * passes,
        "schedule": "constant",
        "warmup_steps": 0,
        "last_rate": 0.0,
    }
    own = {
        "base_channels": 16,
        "centre_scale": 0.5,
        "centre_threshold": 0.8,
        "centre_smoothing": 0.0,
        "instance_method": "ellipse",
        "class_weights": (1.0, 10.0, 10.0),
        "likely_background": 0.0,
        "scale_range": 0.2,
        "rotation": 45.0,
        "flip": False,
        "contrast": 0.5,
        "spread": True,
        **_PAPER_BORDERS,
    }
    return plan, own


def _fast(stacks: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Small crops around labelled pixels and a learning rate that rises and falls: useful within minutes on a CPU.

    Centres of stacks have about the share of a cell's volume that centres of images have of its area. Their threshold
    is fixed: the few labelled cells of a stack or two say less about it than it is likely to lose by following them.
    """
    sizes = (
        {"steps": 150, "most_steps": 600, "batch_size": 2, "crop_size": 64, "crop_depth": 16}
        if stacks
        else {"steps": 250, "most_steps": 3600, "steps_power": 0.7, "batch_size": 8, "crop_size": 96}
    )
    plan = {
        **sizes,
        "learning_rate": 2e-3,
        "weight_decay": 1e-2,
        "lower_percentile": 1.0,
        "upper_percentile": 99.8,
        "validate_every": 100,
        "checkpoint_every": 50,
        "schedule": "cosine",
        "warmup_steps": 25,
        "last_rate": 0.01,
    }
    own = {
        "base_channels": 16,
        "centre_scale": 0.65 if stacks else 0.6,
        "centre_threshold": 0.5 if stacks else None,
        "centre_smoothing": 1.0 if stacks else None,
        "instance_method": "auto",
        "class_weights": (1.0, 1.0, 1.0),
        "likely_background": 1.0,
        "scale_range": 0.2,
        "rotation": 180.0,
        "flip": True,
        "contrast": 0.5,
        "spread": False,
        **(_PAPER_BORDERS if stacks else _TRUE_BORDERS),
    }
    return plan, own
