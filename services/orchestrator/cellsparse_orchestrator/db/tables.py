"""The tables. Times are UTC; states and reasons are the names of the protos' enums without their prefix."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
BigKey = BigInteger().with_variant(Integer, "sqlite")
_DELETED = text("deleted_at IS NOT NULL")
"""Rows of an index that would else hold all others too, and could be mistaken for a way to find them."""


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC, even where the database (SQLite) stores no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Restore the zone of a value from the database."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Sentence(TypeDecorator[str]):
    """Text from other programs, which may hold NUL characters that PostgreSQL cannot store."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace NUL characters."""
        return value if value is None else storable(value)


def storable(text: str) -> str:
    """Return a text as `Sentence` keeps it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


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
    project_id: Mapped[str | None] = mapped_column(String(63))
    """The project that it belongs to (see `caller`); None: none. Not a foreign key: it outlives its project."""
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes of its blobs in the store; None: an earlier version made it."""
    deleted_at: Mapped[datetime | None] = mapped_column(UtcTime)
    """When it was deleted; None: it was not. Look-ups leave out what is deleted (see `caller.visible`)."""
    __table_args__ = (Index("datasets_of_owner", "project_id", "number"), Index("datasets_deleted", "deleted_at"))


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
        Index("runs_deleted", "deleted_at", sqlite_where=_DELETED, postgresql_where=_DELETED),
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


class LeaseRow(Base):
    """Which orchestrator leads (see `db.lease`); one row."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger)
    """Grows with every new holder."""
    beat: Mapped[int] = mapped_column(BigInteger)
    """Grows while the holder lives."""
    holder: Mapped[str] = mapped_column(Text)
    """The holder's process (see `db.holder`); empty: nobody."""


class ReaderRow(Base):
    """Which releases work with this layout (see `db.readers`); one row."""

    __tablename__ = "readers"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    oldest: Mapped[str] = mapped_column(String(32))
    """The earliest layout whose release does."""


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


class ProjectRow(Base):
    """A project."""

    __tablename__ = "projects"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    name: Mapped[str] = mapped_column(Sentence)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    owner_id: Mapped[str | None] = mapped_column(String(63))
    """The project of the token that made it, which it belongs to; None: it stands for itself."""
    deleted_at: Mapped[datetime | None] = mapped_column(UtcTime)
    """When it was deleted; None: it was not. Look-ups leave out what is deleted (see `caller.visible`)."""
    __table_args__ = (Index("projects_of_owner", "owner_id", "number"), Index("projects_deleted", "deleted_at"))


class ProjectImageRow(Base):
    """An image of a project whose tiles are all in the store, and the state of its annotation."""

    __tablename__ = "project_images"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Sentence)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    sha256: Mapped[str] = mapped_column(String(64))
    """The blob of the image as it was uploaded."""
    height: Mapped[int]
    width: Mapped[int]
    planes: Mapped[int]
    """1 for a 2D image: a stack has at least 2."""
    channels: Mapped[int]
    channel_names: Mapped[str] = mapped_column(Text, default="[]", server_default="[]")
    """Names of the channels, JSON; none where there is one channel without a name."""
    dtype: Mapped[str] = mapped_column(String(16))
    """Type of the tiles' pixels."""
    contrast: Mapped[str] = mapped_column(Text)
    """For each channel the values shown as black and as white, JSON."""
    spacing: Mapped[str] = mapped_column(Text)
    """Micrometres per pixel along each axis, JSON."""
    revision: Mapped[int] = mapped_column(BigInteger, default=0)
    """Revision of the annotation."""
    next_label: Mapped[int] = mapped_column(BigInteger, default=2)
    """The label number of the next new cell; no number is given twice."""
    cells: Mapped[int] = mapped_column(BigInteger, default=0)
    labelled_pixels: Mapped[int] = mapped_column(BigInteger, default=0)
    diameter: Mapped[float] = mapped_column(Float, default=0.0)
    stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes of its blob in the store; None: an earlier version made it."""
    __table_args__ = (
        UniqueConstraint("project_id", "name", name="project_image_names"),
        Index("images_of_project", "project_id", "number"),
    )


class LabelTileRow(Base):
    """A tile of label numbers of the full resolution; a tile that was never labelled has no row."""

    __tablename__ = "label_tiles"
    image_id: Mapped[str] = mapped_column(ForeignKey("project_images.id", ondelete="CASCADE"), primary_key=True)
    layer_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    """Empty for the annotation."""
    plane: Mapped[int] = mapped_column(primary_key=True)
    y: Mapped[int] = mapped_column(primary_key=True)
    x: Mapped[int] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    author: Mapped[str] = mapped_column(String(64), default="")
    """Who made the newest change."""
    others_revision: Mapped[int] = mapped_column(BigInteger, default=0)
    """Revision of the newest change by anyone else."""
    object: Mapped[str] = mapped_column(String(100))
    """Name of the tile's object in the store; empty if all its label numbers are 0."""
    labelled: Mapped[int]
    """Number of its labelled pixels."""
    cells: Mapped[bytes] = mapped_column(LargeBinary)
    """Its cells with areas and bounding boxes (see `projects.label_stats`)."""


class AnnotationEditRow(Base):
    """An edit that its author can take back or repeat."""

    __tablename__ = "annotation_edits"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("project_images.id", ondelete="CASCADE"))
    author: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str | None] = mapped_column(String(64))
    request_sha256: Mapped[str] = mapped_column(String(64), default="")
    revision: Mapped[int] = mapped_column(BigInteger)
    """The revision that it made."""
    first_label: Mapped[int] = mapped_column(BigInteger)
    """Label number of its first new cell."""
    new_cells: Mapped[int]
    undone: Mapped[bool] = mapped_column(default=False)
    before: Mapped[bytes] = mapped_column(LargeBinary)
    """What it replaced: the patches of a proto `UndoEditResponse`, with 0xffffffff where it replaced nothing."""
    after: Mapped[bytes] = mapped_column(LargeBinary)
    """What it wrote, likewise."""
    __table_args__ = (
        UniqueConstraint("image_id", "request_id", name="edit_requests"),
        Index("edits_of_author", "image_id", "author", "number"),
    )


class LayerRow(Base):
    """Label numbers that a model predicted for an image."""

    __tablename__ = "layers"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("project_images.id", ondelete="CASCADE"))
    model_id: Mapped[str] = mapped_column(String(63))
    """Empty for a run that was training."""
    run_id: Mapped[str] = mapped_column(String(63))
    """Empty for a model."""
    step: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    cells: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)
    scores: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    """How sure the model was of each cell, by number (see `projects.label_stats`); read where it is asked for only."""
    __table_args__ = (UniqueConstraint("image_id", "model_id", "run_id", name="layers_of_image"),)


class ProjectRunRow(Base):
    """A run that belongs to a project."""

    __tablename__ = "project_runs"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    run_id: Mapped[str] = mapped_column(String(63), unique=True)


class AliasRow(Base):
    """A word that a client uses for a model and for the images that trained it."""

    __tablename__ = "aliases"
    owner: Mapped[str] = mapped_column(String(63), primary_key=True, default="")
    """The project whose tokens use it; empty: used without a project."""
    backend: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(Sentence, primary_key=True)
    project_id: Mapped[str] = mapped_column(String(63))
    """Not a foreign key: the alias of a deleted project keeps its model."""
    model_id: Mapped[str] = mapped_column(String(63))


class PrompterRow(Base):
    """Weights of a prompter that a user brought; the files are in the store."""

    __tablename__ = "prompters"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    """Part of the keys of its files: a prompter that is added again under the same name has other ones."""
    name: Mapped[str] = mapped_column(String(63), unique=True)
    licence: Mapped[str] = mapped_column(Sentence)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    encoder_sha256: Mapped[str] = mapped_column(String(64))
    encoder_size: Mapped[int] = mapped_column(BigInteger)
    decoder_sha256: Mapped[str] = mapped_column(String(64))
    decoder_size: Mapped[int] = mapped_column(BigInteger)


class TokenRow(Base):
    """A token that opens calls; its secret is not stored."""

    __tablename__ = "tokens"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    """Of the secret, which is random and long: it needs no slow hash."""
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(16))
    project_id: Mapped[str | None] = mapped_column(String(63))
    """Not a foreign key: what a deleted project's runs left stays theirs."""
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcTime)


class ChangeRow(Base):
    """A call that changed something, or tried to."""

    __tablename__ = "changes"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    time: Mapped[datetime] = mapped_column(UtcTime, index=True)
    token_id: Mapped[str] = mapped_column(String(63))
    """Empty for the token of the settings."""
    name: Mapped[str] = mapped_column(String(100))
    project_id: Mapped[str] = mapped_column(String(63))
    method: Mapped[str] = mapped_column(String(100))
    subject: Mapped[str] = mapped_column(Sentence)
    source: Mapped[str] = mapped_column(Sentence)
    result: Mapped[str] = mapped_column(String(32))
    __table_args__ = (
        Index("changes_of_token", "token_id", "number"),
        Index("changes_of_project", "project_id", "number"),
    )


class UnreferencedRow(Base):
    """Objects that a collection has found without anything that refers to them."""

    __tablename__ = "unreferenced"
    key: Mapped[str] = mapped_column(String(900), primary_key=True)
    """Key of a blob, or prefix of what belongs together."""
    since: Mapped[datetime] = mapped_column(UtcTime)
    """When it was found so first; each collection since then has found the same."""


class InstallationRow(Base):
    """Which installation this is; one row. The store holds the same id, so that no other one collects there."""

    __tablename__ = "installation"
    id: Mapped[str] = mapped_column(String(63), primary_key=True)


class HoldRow(Base):
    """What keeps collections off."""

    __tablename__ = "holds"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    until: Mapped[datetime] = mapped_column(UtcTime)


class ProjectLimitsRow(Base):
    """What administrators have set for a project; a project without a row has the settings' values, and no quotas."""

    __tablename__ = "project_limits"
    project_id: Mapped[str] = mapped_column(String(63), primary_key=True)
    checkpoint_days: Mapped[int | None]
    """Days after which a run that has ended keeps its best and its last checkpoint only."""
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Most bytes of datasets, images and models."""
    max_items: Mapped[int | None] = mapped_column(BigInteger)
    """Most items of datasets, and images."""
    max_runs: Mapped[int | None]
    """Most runs that have not ended."""
    max_gpu_hours: Mapped[float | None] = mapped_column(Float)
    """Most hours that trainings may have taken, times their processes."""


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
