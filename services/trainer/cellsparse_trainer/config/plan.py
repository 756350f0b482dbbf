"""The part of a resolved configuration that every backend shares."""

from dataclasses import dataclass

from cellsparse_common.channels import MAX_CHANNELS

MOST_COPIES = 8
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")
GRADIENT_FORMATS = ("float32", "float16")
RATE_SCALINGS = ("none", "square_root", "linear")
SCHEDULES = ("constant", "cosine", "stairs")
GPU_SWITCHES = ("compile_step", "pinned_prefetch", "device_augmentation")
"""Fields that speed up a training on a GPU and are refused elsewhere; not every backend has each."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and on what a run trains. Each backend's `Config` holds one as `plan`.

    Raises:
        ValueError: A value is outside its range.
    """

    steps: int
    """Optimizer steps in all, from 1."""
    batch_size: int
    """Crops per step and process, from 1."""
    crop_size: int
    """Crop height and width in pixels, a multiple of 16, from 32."""
    learning_rate: float
    """Peak learning rate of one process, above 0."""
    weight_decay: float
    """Weight decay, from 0."""
    lower_percentile: float
    """Percentile of the image that becomes 0, 0 to 50."""
    upper_percentile: float
    """Percentile of the image that becomes 1, 50 to 100."""
    channel: int | None
    """Image channel, from 0; None: the mean of all channels. Has no effect where there are `channels`."""
    validate_every: int
    """Steps between validations, from 1."""
    checkpoint_every: int
    """Steps between checkpoints, from 1."""
    seed: int
    """Seed of weights, crops and augmentation."""
    device: str
    """One of `DEVICES`."""
    crop_depth: int | None = None
    """Planes per crop where the training items are stacks (axes ZYX), from 1; None: they are 2D (axes YX)."""
    schedule: str = "constant"
    """One of `SCHEDULES`: how the learning rate changes, see `schedule.learning_rate`."""
    warmup_steps: int = 0
    """Steps until the learning rate is at its peak, from 0."""
    last_rate: float = 0.0
    """Learning rate at the end relative to the peak, 0 to 1; for "cosine" only."""
    checkpoint_seconds: float = 300.0
    """Seconds after which a checkpoint is written in any case, above 0."""
    num_workers: int | None = None
    """Processes that make batches ahead of the network, from 0; None: by device."""
    patience: int = 0
    """Validations in a row without a better score after which the training ends, from 0; 0: never before its time."""
    precision: str = "auto"
    """One of `PRECISIONS`: number format of the network's arithmetic; "auto" is what the device gains from."""
    nodes: int = 1
    """Nodes that train together, from 1. An attempt may have fewer, but takes the same steps: see `ranks`."""
    min_nodes: int | None = None
    """Fewest nodes that may go on with the training, 1 to `nodes`; None: all of them."""
    processes_per_node: int = 1
    """Processes on each of them, from 1."""
    rate_scaling: str = "square_root"
    """One of `RATE_SCALINGS`: how the learning rate grows with the number of processes."""
    gradient_format: str = "float32"
    """One of `GRADIENT_FORMATS`: how gradients travel between processes."""
    minutes: float | None = None
    """Minutes after which the training ends, above 0 (see `time_budget`); None: when its steps are done."""
    most_steps: int = 0
    """Steps for many and varied images, where the preset's depend on the data (see `budget`); 0: they do not."""
    steps_power: float = 0.5
    """Power of the variety of the data that those steps grow with (see `budget`), 0 to 1."""
    budget: str = ""
    """Why there are so many steps, in a sentence."""
    channels: tuple[int, ...] = ()
    """Image channels of a network that takes several, from 0, in its order; empty: it gets one, as `channel` says."""
    colour_shift: float = 0.0
    """Augmentation of several channels: how far the brightness of each changes by itself, 0 to 1 (see `colours`)."""

    copy_paste: int = 0
    """Augmentation: copies of labelled cells pasted beside each labelled one, 0 to `MOST_COPIES` (see `copy_paste`)."""

    compile_step: bool = False
    """Whether the network of a step is compiled."""
    pinned_prefetch: bool = False
    """Whether each next batch is copied to the GPU during a step."""
    device_augmentation: bool = False
    """Whether crops are turned, scaled and recoloured on the GPU."""

    @property
    def world(self) -> int:
        """Processes that train together on all nodes."""
        return self.nodes * self.processes_per_node

    @property
    def inputs(self) -> int:
        """Image channels that the network gets, from 1."""
        return max(1, len(self.channels))

    @property
    def crops_per_step(self) -> int:
        """Crops of all processes per step."""
        return self.batch_size * self.world

    def __post_init__(self) -> None:
        positive = ("steps", "batch_size", "validate_every", "checkpoint_every", "nodes", "processes_per_node")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: from 1.")
        if self.min_nodes is not None and not 1 <= self.min_nodes <= self.nodes:
            raise ValueError(f"min_nodes is {self.min_nodes}; allowed: 1 to nodes, {self.nodes}.")
        if self.crop_depth is not None and self.crop_depth < 1:
            raise ValueError(f"crop_depth is {self.crop_depth}; allowed: from 1.")
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
        if self.lower_percentile == self.upper_percentile:
            raise ValueError("the percentiles are both 50, which leaves no image; allowed: two different ones.")
        for name in ("warmup_steps", "num_workers", "patience", "most_steps"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: from 0.")
        if not self.checkpoint_seconds > 0:
            raise ValueError(f"checkpoint_seconds is {self.checkpoint_seconds}; allowed: above 0.")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes is {self.minutes}; allowed: above 0.")
        if (
            len(self.channels) == 1
            or len(set(self.channels)) != len(self.channels)
            or len(self.channels) > MAX_CHANNELS
        ):
            raise ValueError(f"channels are {self.channels}; allowed: 2 to {MAX_CHANNELS}, each once.")
        if not all(0 <= channel < MAX_CHANNELS for channel in self.channels):
            raise ValueError(f"channels are {self.channels}; allowed: 0 to {MAX_CHANNELS - 1}.")
        if not 0 <= self.steps_power <= 1:
            raise ValueError(f"steps_power is {self.steps_power}; allowed: 0 to 1.")
        if not 0 <= self.colour_shift <= 1:
            raise ValueError(f"colour_shift is {self.colour_shift}; allowed: 0 to 1.")
        if not 0 <= self.copy_paste <= MOST_COPIES:
            raise ValueError(f"copy_paste is {self.copy_paste}; allowed: 0 to {MOST_COPIES}.")
        if self.copy_paste and self.crop_depth is not None:
            raise ValueError(f"copy_paste is {self.copy_paste} with stacks; allowed: 0.")
        if not 0 <= self.last_rate <= 1:
            raise ValueError(f"last_rate is {self.last_rate}; allowed: 0 to 1.")
        if self.compile_step and self.world > 1:
            raise ValueError(f"compile_step is true with {self.world} processes; allowed: with one process.")
        choices = {
            "device": DEVICES,
            "schedule": SCHEDULES,
            "precision": PRECISIONS,
            "rate_scaling": RATE_SCALINGS,
            "gradient_format": GRADIENT_FORMATS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}.")
