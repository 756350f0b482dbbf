"""Settings of a trainer service, from the environment (prefix CELLSPARSE_)."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from cellsparse_common.config.settings import InnerServerSettings, StoreSettings


class ProcessSettings(StoreSettings):
    """Settings of a training process, which it reads from the environment that it inherits from its server."""

    cache_mib: int = Field(default=1024, ge=1, le=1_048_576)
    """Memory in MiB for training images that stay decoded, and as much for validation images; 1 to 1,048,576."""
    target_dir: Path | None = None
    """Folder for training targets that take long to compute, shared by all trainings on this machine. It may be lost at
    any time. Not set: every training computes its own. The orchestrator's local launcher sets it."""
    target_mib: int = Field(default=1024, ge=1, le=1_048_576)
    """Most MiB in that folder, about; 1 to 1,048,576."""
    outage_seconds: float = Field(default=86_400.0, ge=0, le=2_592_000)
    """Seconds that a training waits for an object store that does not answer; 0 to 2,592,000 (30 days). After them the
    attempt ends with reason STORAGE, and the next one begins when the store answers. The training itself goes on
    meanwhile as long as it needs nothing from the store."""
    keep_mib: int = Field(default=16_384, ge=0, le=16_777_216)
    """Most MiB of checkpoints that wait for the object store in the work folder; 0 to 16,777,216. There are at most
    three, of which the last best one and one under way are kept in any case; a newest one that does not fit is left
    out. It is left out, too, where the disk has no room for it and one more."""
    precision: Literal["auto", "float32"] = "auto"
    """Number format of predictions, and of trainings whose `precision` is AUTO. "auto": bfloat16 where the hardware
    computes in it, a few times faster; predictions of models that were trained in float32 stay in float32. "float32":
    always float32, for results that equal those of other tools and machines to the last digits."""


class TrainerSettings(InnerServerSettings, ProcessSettings):
    """Settings of a trainer service."""

    work_dir: Path | None = None
    """Folder of this trainer alone for event logs, checkpoints in the making and opened models. It may be lost at any
    time. If it is kept, a restarted trainer still knows how earlier attempts ended. Not set: a temporary folder."""
    stop_seconds: float = Field(default=15.0, gt=0, le=600)
    """Seconds that a training process gets to write a checkpoint and end, above 0 to 600."""
    rendezvous_seconds: float = Field(default=120.0, gt=0, le=3600)
    """Seconds within which all processes of a training must connect, above 0 to 3600; else the attempt fails."""
    predict_seconds: float = Field(default=600.0, gt=0, le=86400)
    """Most seconds for one prediction, above 0 to 86400; for images of 4096 x 4096 pixels and more, and for files that
    come through the store, 8 times as many."""
    export_seconds: float = Field(default=600.0, gt=0, le=86400)
    """Most seconds for writing one model as a file for other tools, above 0 to 86400."""
    import_seconds: float = Field(default=300.0, gt=0, le=86400)
    """Most seconds for checking and publishing one uploaded model, above 0 to 86400."""
    workers: int = Field(default=128, ge=1, le=1024)
    """Calls that are handled at once, 1 to 1024. Each open stream counts as one, and each prediction that waits. One
    connection, such as the orchestrator's, may hold three quarters of them. Health checks, status and cancelling do
    not count."""
    inference_processes: int = Field(default=0, ge=0, le=64)
    """Processes that predict at the same time, 0 to 64; 0: one per GPU, without a GPU one. Each loads the framework and
    a model of its own. On a GPU each gets one of the GPUs in turn, else its share of the cores."""
    waiting_predictions: int = Field(default=32, ge=1, le=512)
    """Predictions that may wait for a process, 1 to 512. Any further one is told when to come again, and keeps its
    place in line. The images of those that wait are in memory."""
    cached_models: int = Field(default=200, ge=1, le=100_000)
    """Most downloaded models in the work folder, 1 to 100,000; the least recently used go. The newest always stays."""
    cached_models_mib: int = Field(default=20_480, ge=1, le=16_777_216)
    """Most MiB of these, 1 to 16,777,216."""
    open_models: int = Field(default=4, ge=1, le=1000)
    """Models that each prediction process keeps open, 1 to 1000, so that people who use different models do not wait
    for them to be opened again and again. The least recently used is closed. Each takes memory, on a GPU the GPU's."""
    open_models_mib: int = Field(default=1024, ge=1, le=1_048_576)
    """Most MiB of the files of these, 1 to 1,048,576; about the memory that they take. The newest stays in any case."""
    idle_seconds: float = Field(default=300.0, gt=0, le=86400)
    """Seconds without a prediction after which the prediction process ends and frees its memory."""
    warm_seconds: float = Field(default=0.0, ge=0, le=86400)
    """Seconds for which a process that has loaded the framework is kept after an attempt, so that the next attempt
    starts sooner; 0 keeps none. It takes the framework's memory."""
    warm_start: bool = False
    """Whether the framework is loaded when the trainer starts, and not with the first attempt; for `warm_seconds`
    above 0."""
