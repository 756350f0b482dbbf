"""Projects: images, annotations, layers, runs of projects, aliases. Weights of prompters."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables of projects and of prompters."""
    _projects()
    _annotations()
    _runs_and_aliases()
    _prompters()


def _projects() -> None:
    op.create_table(
        "projects",
        sa.Column("number", _KEY, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(63), nullable=False, unique=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "project_images",
        sa.Column("number", _KEY, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(63), nullable=False, unique=True),
        sa.Column("project_id", sa.String(63), sa.ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("planes", sa.Integer(), nullable=False),
        sa.Column("channels", sa.Integer(), nullable=False),
        sa.Column("dtype", sa.String(16), nullable=False),
        sa.Column("contrast", sa.Text(), nullable=False),
        sa.Column("spacing", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("next_label", sa.BigInteger(), nullable=False),
        sa.Column("cells", sa.BigInteger(), nullable=False),
        sa.Column("labelled_pixels", sa.BigInteger(), nullable=False),
        sa.Column("diameter", sa.Float(), nullable=False),
        sa.UniqueConstraint("project_id", "name", name="project_image_names"),
        sqlite_autoincrement=True,
    )
    op.create_index("images_of_project", "project_images", ["project_id", "number"])


def _annotations() -> None:
    image = "project_images.id"
    op.create_table(
        "label_tiles",
        sa.Column("image_id", sa.String(63), sa.ForeignKey(image, ondelete="CASCADE"), primary_key=True),
        sa.Column("layer_id", sa.String(63), primary_key=True),
        sa.Column("plane", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("y", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("x", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.String(64), nullable=False),
        sa.Column("others_revision", sa.BigInteger(), nullable=False),
        sa.Column("object", sa.String(100), nullable=False),
        sa.Column("labelled", sa.Integer(), nullable=False),
        sa.Column("cells", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "annotation_edits",
        sa.Column("number", _KEY, primary_key=True, autoincrement=True),
        sa.Column("image_id", sa.String(63), sa.ForeignKey(image, ondelete="CASCADE"), nullable=False),
        sa.Column("author", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=True),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("first_label", sa.BigInteger(), nullable=False),
        sa.Column("new_cells", sa.Integer(), nullable=False),
        sa.Column("undone", sa.Boolean(), nullable=False),
        sa.Column("before", sa.LargeBinary(), nullable=False),
        sa.Column("after", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("image_id", "request_id", name="edit_requests"),
        sqlite_autoincrement=True,
    )
    op.create_index("edits_of_author", "annotation_edits", ["image_id", "author", "number"])
    op.create_table(
        "layers",
        sa.Column("number", _KEY, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(63), nullable=False, unique=True),
        sa.Column("image_id", sa.String(63), sa.ForeignKey(image, ondelete="CASCADE"), nullable=False),
        sa.Column("model_id", sa.String(63), nullable=False),
        sa.Column("run_id", sa.String(63), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("cells", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("scores", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("image_id", "model_id", "run_id", name="layers_of_image"),
        sqlite_autoincrement=True,
    )


def _runs_and_aliases() -> None:
    project = sa.ForeignKey("projects.id", ondelete="CASCADE")
    op.create_table(
        "project_runs",
        sa.Column("number", _KEY, primary_key=True, autoincrement=True),
        sa.Column("project_id", sa.String(63), project, nullable=False, index=True),
        sa.Column("run_id", sa.String(63), nullable=False, unique=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "aliases",
        sa.Column("backend", sa.String(32), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("project_id", sa.String(63), nullable=False),
        sa.Column("model_id", sa.String(63), nullable=False),
    )


def _prompters() -> None:
    op.create_table(
        "prompters",
        sa.Column("number", _KEY, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(63), nullable=False, unique=True),
        sa.Column("name", sa.String(63), nullable=False, unique=True),
        sa.Column("licence", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("encoder_sha256", sa.String(64), nullable=False),
        sa.Column("encoder_size", sa.BigInteger(), nullable=False),
        sa.Column("decoder_sha256", sa.String(64), nullable=False),
        sa.Column("decoder_size", sa.BigInteger(), nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Undo; projects and prompters are forgotten, the projects' datasets, runs and models stay."""
    for table in (
        "prompters",
        "aliases",
        "project_runs",
        "layers",
        "annotation_edits",
        "label_tiles",
        "project_images",
        "projects",
    ):
        op.drop_table(table)
