"""Runs, their attempts and events."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from cellsparse_orchestrator.db.tables.columns import DELETED, Base, BigKey, Sentence, UtcTime


class RunRow(Base):
    """A run: what was asked for, and its state."""

    __tablename__ = "runs"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    request_id: Mapped[str | None] = mapped_column(String(64), unique=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(100))
    backend: Mapped[str] = mapped_column(String(32))
    dataset_id: Mapped[str] = mapped_column(String(63))
    """Not a foreign key: a dataset may be deleted once all its runs have ended."""
    settings: Mapped[str] = mapped_column(Text)
    """The proto `TrainingSettings` as JSON."""
    priority: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(16), default="")
    message: Mapped[str] = mapped_column(Sentence, default="")
    attempts: Mapped[int] = mapped_column(default=0)
    """Attempts begun; also the number of the newest one."""
    interruptions: Mapped[int] = mapped_column(default=0)
    """Attempts that ended in an orderly shutdown, an outage of the store or by a preemption in a queue of the cluster;
    they do not use up `max_attempts`."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    retry_at: Mapped[datetime | None] = mapped_column(UtcTime)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    last_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    """Sequence number of the newest event."""
    progress: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    """The newest attempt's newest proto `TrainingEvent` that reports steps."""
    validation: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    """The newest proto `TrainingEvent` with validation scores."""
    project_id: Mapped[str | None] = mapped_column(String(63))
    """The project that it belongs to (see `caller`); None: none. Not a foreign key: it outlives its project."""
    deleted_at: Mapped[datetime | None] = mapped_column(UtcTime)
    """When it was deleted; None: it was not. Look-ups leave out what is deleted (see `caller.visible`)."""
    nodes: Mapped[int] = mapped_column(default=0, server_default="0")
    """Nodes of the newest attempt; 0: there is none, or an earlier version began it."""
    __table_args__ = (
        Index("runs_deleted", "deleted_at", sqlite_where=DELETED, postgresql_where=DELETED),
        Index("runs_of_owner", "project_id", "number"),
        Index("runs_of_state", "state", "number"),
        Index("runs_of_backend", "backend", "number"),
        Index("runs_in_dataset", "dataset_id", "number"),
        Index("runs_in_line", "state", "priority", "number"),
        Index("runs_of_dataset", "dataset_id", "state"),
    )


class AttemptRow(Base):
    """One attempt of a run; written before its trainer is asked to start."""

    __tablename__ = "attempts"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(16), default="")
    message: Mapped[str] = mapped_column(Sentence, default="")
    last_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    """Sequence number of the trainer's newest stored event; events up to it are repetitions."""
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    trainer: Mapped[str] = mapped_column(Text, default="")
    """Address of the trainer that was asked to start it, written before it was asked; empty: none yet."""
    secret: Mapped[str] = mapped_column(String(64), default="")
    """What its processes know each other by. Kept, since another orchestrator may have to ask the rest of the nodes."""
    nodes: Mapped[int] = mapped_column(default=0, server_default="0")
    """Nodes that it has, or waits for; 0: those of the settings, where an earlier version began it."""
    min_nodes: Mapped[int] = mapped_column(default=0, server_default="0")
    """Fewest nodes that it may begin with if no more can be had (see `sizes`); 0: all."""


class EventRow(Base):
    """Something that happened to a run."""

    __tablename__ = "events"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    time: Mapped[datetime] = mapped_column(UtcTime)
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str] = mapped_column(String(16), default="")
    message: Mapped[str] = mapped_column(Sentence, default="")
    training: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The proto `TrainingEvent` that the trainer reported."""
