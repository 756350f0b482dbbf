"""Studies and their members."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from cellsparse_orchestrator.db.tables.columns import Base, BigKey, UtcTime


class StudyRow(Base):
    """A study: what was asked for, and its state."""

    __tablename__ = "studies"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    request_id: Mapped[str | None] = mapped_column(String(64), unique=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(100))
    dataset_id: Mapped[str] = mapped_column(String(63))
    """Not a foreign key: a dataset may be deleted once all its studies have ended."""
    grid: Mapped[str] = mapped_column(Text)
    """The proto `StudyGrid`, filled, as JSON."""
    split: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), index=True)
    message: Mapped[str] = mapped_column(Text, default="")
    sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    """Grows with every change of the study or of one of its members."""
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    project_id: Mapped[str | None] = mapped_column(String(63))
    """The project that it belongs to (see `caller`); None: none. Not a foreign key: it outlives its project."""
    deleted_at: Mapped[datetime | None] = mapped_column(UtcTime)
    """When it was deleted; None: it was not. Look-ups leave out what is deleted (see `caller.visible`)."""
    __table_args__ = (Index("studies_of_owner", "project_id", "number"), Index("studies_deleted", "deleted_at"))


class StudyMemberRow(Base):
    """A member of a study. Its run's id is fixed from the start, so a restart cannot make a second run."""

    __tablename__ = "study_members"
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(String(63), unique=True)
    """The run that it has or will have; not a foreign key, because the run is made later."""
    dataset_id: Mapped[str] = mapped_column(String(63))
    """Its label set, which may not exist yet."""
    settings: Mapped[str] = mapped_column(Text)
    """The proto `TrainingSettings` as JSON."""
    state: Mapped[str] = mapped_column(String(16))
    sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    """The study's sequence number at this member's last change."""
    summary: Mapped[str] = mapped_column(Text)
    """The proto `StudyMember` as JSON; the column `state` is authoritative."""
    __table_args__ = (
        Index("members_by_state", "study_id", "state", "number"),
        Index("members_by_change", "study_id", "sequence"),
        Index("members_of_label_set", "dataset_id", "state"),
    )
