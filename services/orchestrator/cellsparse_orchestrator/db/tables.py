"""The tables. Times are UTC; states and reasons are the names of the protos' enums without their prefix."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
BigKey = BigInteger().with_variant(Integer, "sqlite")


class UtcTime(TypeDecorator[datetime]):
    """A time with zone UTC, also where the database (SQLite) keeps none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Put the zone back on a value from the database."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables."""


class DatasetRow(Base):
    """A dataset that clients can see; its items are in the store's manifest."""

    __tablename__ = "datasets"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    parent_id: Mapped[str] = mapped_column(String(63), default="")
    summary: Mapped[str] = mapped_column(Text)
    """The proto `Dataset` as JSON."""


class RunRow(Base):
    """A run: what is wanted of it and where it stands."""

    __tablename__ = "runs"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    request_id: Mapped[str | None] = mapped_column(String(64), unique=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(100))
    backend: Mapped[str] = mapped_column(String(32))
    dataset_id: Mapped[str] = mapped_column(String(63))
    """No foreign key: a dataset may be deleted when the runs that used it have ended."""
    settings: Mapped[str] = mapped_column(Text)
    """The proto `TrainingSettings` as JSON."""
    priority: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(16), default="")
    message: Mapped[str] = mapped_column(Text, default="")
    attempts: Mapped[int] = mapped_column(default=0)
    """Attempts begun; the newest one's number."""
    interruptions: Mapped[int] = mapped_column(default=0)
    """Attempts that ended because the system was stopped in good order; they do not count against `max_attempts`."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    retry_at: Mapped[datetime | None] = mapped_column(UtcTime)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    last_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    """Sequence number of the newest event."""
    progress: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    """The newest proto `TrainingEvent` of the newest attempt that says how far it is."""
    validation: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    """The newest proto `TrainingEvent` that carries validation scores."""
    __table_args__ = (
        Index("runs_in_line", "state", "priority", "number"),
        Index("runs_of_dataset", "dataset_id", "state"),
    )


class AttemptRow(Base):
    """One attempt of a run at a trainer; written before the trainer is asked."""

    __tablename__ = "attempts"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(16), default="")
    message: Mapped[str] = mapped_column(Text, default="")
    last_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    """Sequence number of the newest event of the trainer that is stored; smaller ones are repetitions."""
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)


class EventRow(Base):
    """Something that happened to a run."""

    __tablename__ = "events"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    time: Mapped[datetime] = mapped_column(UtcTime)
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str] = mapped_column(String(16), default="")
    message: Mapped[str] = mapped_column(Text, default="")
    training: Mapped[bytes | None] = mapped_column(LargeBinary)
    """What the trainer reported: the proto `TrainingEvent`."""


class ModelRow(Base):
    """A model in the store, with the id of the run that trained it."""

    __tablename__ = "models"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    backend: Mapped[str] = mapped_column(String(32))
    dataset_id: Mapped[str] = mapped_column(String(63))
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    step: Mapped[int] = mapped_column(default=0)
    validation: Mapped[str] = mapped_column(Text, default="{}")
    """Validation scores by name, JSON."""
