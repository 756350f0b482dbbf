"""Datasets, models, uploads, and what is no longer referred to."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from cellsparse_orchestrator.db.tables.columns import Base, BigKey, UtcTime


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
    project_id: Mapped[str | None] = mapped_column(String(63))
    """The project that it belongs to (see `caller`); None: none. Not a foreign key: it outlives its project."""
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes of its blobs in the store; None: an earlier version made it."""
    deleted_at: Mapped[datetime | None] = mapped_column(UtcTime)
    """When it was deleted; None: it was not. Look-ups leave out what is deleted (see `caller.visible`)."""
    __table_args__ = (Index("datasets_of_owner", "project_id", "number"), Index("datasets_deleted", "deleted_at"))


class ModelRow(Base):
    """A model in the store. A trained model has the id of its run, an imported one its own."""

    __tablename__ = "models"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    backend: Mapped[str] = mapped_column(String(32))
    dataset_id: Mapped[str] = mapped_column(String(63))
    """Empty for an imported model."""
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    step: Mapped[int] = mapped_column(default=0)
    validation: Mapped[str] = mapped_column(Text, default="{}")
    """Validation scores by name, JSON."""
    initial_model: Mapped[str] = mapped_column(String(63), default="")
    """The model that training started from; empty if there was none."""
    start_validation: Mapped[str] = mapped_column(Text, default="{}")
    """Validation scores of that model by name, JSON."""
    project_id: Mapped[str | None] = mapped_column(String(63))
    """The project that it belongs to (see `caller`); None: none. Not a foreign key: it outlives its project."""
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes of its files in the store; None: an earlier version made it."""
    deleted_at: Mapped[datetime | None] = mapped_column(UtcTime)
    """When it was deleted; None: it was not. Look-ups leave out what is deleted (see `caller.visible`)."""
    __table_args__ = (Index("models_of_owner", "project_id", "number"), Index("models_deleted", "deleted_at"))


class UploadRow(Base):
    """A file that a project sends, or has sent (see `catalogue.blob_uploads`). While it is there, its blob stays."""

    __tablename__ = "uploads"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    """Whose it is; empty: nobody's. Not a foreign key."""
    size: Mapped[int] = mapped_column(BigInteger)
    """Bytes of the whole file."""
    complete: Mapped[bool] = mapped_column(default=False)
    """Its blob is in the store."""
    used: Mapped[bool] = mapped_column(default=False)
    """Something was made of it, whose bytes count in its place."""
    touched_at: Mapped[datetime] = mapped_column(UtcTime, index=True)
    """When somebody last sent it or asked for it."""
    __table_args__ = (Index("uploads_of_project", "project_id"),)


class UnreferencedRow(Base):
    """Objects that a collection has found without anything that refers to them."""

    __tablename__ = "unreferenced"
    key: Mapped[str] = mapped_column(String(900), primary_key=True)
    """Key of a blob, or prefix of what belongs together."""
    since: Mapped[datetime] = mapped_column(UtcTime)
    """When it was found so first; each collection since then has found the same."""
