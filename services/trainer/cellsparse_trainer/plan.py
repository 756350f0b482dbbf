"""The part of a resolved configuration that every backend shares."""

from dataclasses import dataclass

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and on what a run trains. Each backend's `Config` holds one as `plan`.

    Raises:
        ValueError: A value is outside its range.
    """

    steps: int
    """Optimizer steps in all, from 1."""
    batch_size: int
    """Crops per step, from 1."""
    crop_size: int
    """Crop height and width in pixels, a multiple of 16, from 32."""
    learning_rate: float
    """Peak learning rate, above 0."""
    weight_decay: float
    """Weight decay, from 0."""
    lower_percentile: float
    """Percentile of the image that becomes 0, 0 to 50."""
    upper_percentile: float
    """Percentile of the image that becomes 1, 50 to 100."""
    channel: int | None
    """Image channel, from 0; None: the mean of all channels."""
    validate_every: int
    """Steps between validations, from 1."""
    checkpoint_every: int
    """Steps between checkpoints, from 1."""
    seed: int
    """Seed of weights, crops and augmentation."""
    device: str
    """One of `DEVICES`."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: from 1.")
        if self.crop_size < 32 or self.crop_size % 16:
            raise ValueError(f"crop_size is {self.crop_size}; allowed: multiples of 16 from 32.")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; allowed: above 0.")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; allowed: from 0.")
        if not 0 <= self.lower_percentile <= 50 <= self.upper_percentile <= 100:
            raise ValueError(
                f"the percentiles are {self.lower_percentile} and {self.upper_percentile}; "
                "allowed: 0 to 50 and 50 to 100."
            )
        if self.device not in DEVICES:
            raise ValueError(f"device is {self.device!r}; allowed: {', '.join(DEVICES)}.")
