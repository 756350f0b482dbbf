"""Projects, their images, annotations, layers and limits."""

from datetime import datetime

from sqlalchemy import BigInteger, Float, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from cellsparse_orchestrator.db.tables.columns import Base, BigKey, Sentence, UtcTime


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
