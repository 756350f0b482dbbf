"""Settings of a trainer service, from the environment (prefix CELLSPARSE_)."""

from pathlib import Path

from pydantic import Field

from cellsparse_common.settings import ServerSettings


class TrainerSettings(ServerSettings):
    """What a trainer needs besides a server's settings."""

    work_dir: Path | None = None
    """Folder of this trainer alone for event logs, checkpoints in the making and opened models. It may be lost at any
    time; kept, a restarted trainer can still tell how earlier attempts ended. Not set: a temporary folder."""
    stop_seconds: float = Field(default=15.0, gt=0, le=600)
    """Seconds that a training process gets to write a checkpoint and end, above 0 to 600."""
    predict_seconds: float = Field(default=600.0, gt=0, le=86400)
    """Most seconds for one prediction, above 0 to 86400."""
    export_seconds: float = Field(default=600.0, gt=0, le=86400)
    """Most seconds for writing one model as a file for other tools, above 0 to 86400."""
    idle_seconds: float = Field(default=300.0, gt=0, le=86400)
    """Seconds without a prediction after which the prediction process ends and frees its memory."""
