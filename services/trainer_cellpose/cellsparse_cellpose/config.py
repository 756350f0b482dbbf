"""Settings of a Cellpose training: presets, ranges, and their form at rest."""

import dataclasses
import json
from dataclasses import dataclass
from math import ceil
from typing import Any, Self

from google.protobuf.message import Message

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.plan import Plan

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("steps", "cosine")
SAMPLINGS = ("image", "cell")
RESCALES = ("image", "dataset")

PAPER_EPOCHS = 100
FAST_STEPS = 360
FAST_BATCH = 4

_DEVICES = {
    trainer_pb2.DEVICE_UNSPECIFIED: "auto",
    trainer_pb2.DEVICE_AUTO: "auto",
    trainer_pb2.DEVICE_CPU: "cpu",
    trainer_pb2.DEVICE_CUDA: "cuda",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """How Cellpose trains and segments.

    Raises:
        ValueError: A value is outside its range.
    """

    plan: Plan
    """What all backends share."""
    mean_diameter: float
    """Diameter in pixels to which images are rescaled, 5 to 200."""
    scale_range: float
    """Width of the augmentation's scale range around 1, 0 to 1.5."""
    optimizer: str
    """One of `OPTIMIZERS`: SGD with momentum 0.9, or AdamW."""
    schedule: str
    """One of `SCHEDULES`: "steps" rises epoch by epoch and stays, "cosine" rises step by step and falls to 0."""
    warmup: int
    """Epochs ("steps") or steps ("cosine") until the learning rate is at its peak, from 0."""
    sampling: str
    """One of `SAMPLINGS`: "image" takes every image once per epoch and crops anywhere, "cell" crops around cells."""
    rescale: str
    """One of `RESCALES`: bring each image's own labelled cells to the mean diameter, or those of the whole dataset."""
    background_share: float
    """Share of the pixels that is taken to be background, 0 to 0.95. Labelled background weighs more in the cell
    probability's loss until it has this share of the labelled pixels; 0 leaves it as it is."""
    flow_threshold: float
    """Mask recovery: largest flow error kept, 0 to 10; 0 keeps all."""
    cellprob_threshold: float
    """Mask recovery: smallest cell probability logit, -6 to 6."""
    min_size: int
    """Mask recovery: cells of fewer pixels are dropped, 0 to 100,000."""
    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Feature channels per level, 2 levels or more, the last 256; only the default opens in the stock tool."""

    def __post_init__(self) -> None:
        _within("mean_diameter", self.mean_diameter, 5, 200)
        _within("scale_range", self.scale_range, 0, 1.5)
        _within("flow_threshold", self.flow_threshold, 0, 10)
        _within("cellprob_threshold", self.cellprob_threshold, -6, 6)
        _within("min_size", self.min_size, 0, 100_000)
        _within("background_share", self.background_share, 0, 0.95)
        _within("warmup", self.warmup, 0, 1_000_000)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("sampling", self.sampling, SAMPLINGS)
        _one_of("rescale", self.rescale, RESCALES)
        # Cellpose's tiling holds style vectors of 256 values, one per channel of the last level.
        if len(self.channels) < 2 or min(self.channels) < 1 or self.channels[-1] != 256:
            raise ValueError(f"channels is {self.channels}; allowed: two levels or more, the last of 256 channels.")

    def to_json(self) -> str:
        """Return all settings as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: A setting is missing, unknown or outside its range.
        """
        try:
            values = json.loads(text)
            plan = Plan(**values.pop("plan"))
            return cls(plan=plan, channels=tuple(values.pop("channels")), **values)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"This is not a Cellpose configuration: {error}.") from error


def resolve(settings: trainer_pb2.TrainingSettings, items: int) -> Config:
    """Applies the preset, then every setting that is given.

    Args:
        settings: What the user asked for.
        items: Number of training images, from 1.

    Returns:
        The complete configuration.

    Raises:
        ValueError: A combination of settings is not allowed.
    """
    paper = settings.preset == trainer_pb2.PRESET_PAPER
    own = settings.cellpose
    batch_size = settings.batch_size if settings.HasField("batch_size") else (8 if paper else FAST_BATCH)
    steps = PAPER_EPOCHS * ceil(max(1, items) / batch_size) if paper else FAST_STEPS
    plan = Plan(
        steps=_given(settings, "steps", steps),
        batch_size=batch_size,
        crop_size=_given(settings, "crop_size", 224 if paper else 64),
        learning_rate=_given(settings, "learning_rate", 1e-3 if paper else 2e-3),
        weight_decay=_given(settings, "weight_decay", 1e-4 if paper else 1e-2),
        lower_percentile=_given(settings, "lower_percentile", 0.0 if paper else 1.0),
        upper_percentile=_given(settings, "upper_percentile", 100.0 if paper else 99.8),
        channel=_given(settings, "channel", None),
        validate_every=_given(settings, "validate_every_steps", max(1, steps // PAPER_EPOCHS * 5 if paper else 90)),
        checkpoint_every=_given(settings, "checkpoint_every_steps", 100 if paper else 90),
        seed=settings.seed,
        device=_DEVICES[settings.device],
    )
    return Config(
        plan=plan,
        mean_diameter=_given(own, "mean_diameter", 30.0 if paper else 24.0),
        scale_range=_given(own, "scale_range", 0.5 if paper else 0.8),
        optimizer="sgd" if paper else "adamw",
        schedule="steps" if paper else "cosine",
        warmup=10 if paper else 20,
        sampling="image" if paper else "cell",
        rescale="image" if paper else "dataset",
        background_share=_given(own, "background_share", 0.0 if paper else 0.8),
        flow_threshold=_given(own, "flow_threshold", 0.4),
        cellprob_threshold=_given(own, "cellprob_threshold", 0.0),
        min_size=_given(own, "min_size", 15),
    )


def _given(message: Message, field: str, default: Any) -> Any:
    return getattr(message, field) if message.HasField(field) else default


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; allowed: {low:,} to {high:,}.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}.")
