"""Studies and their members."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables of studies and members."""
    op.create_table(
        "studies",
        sa.Column("number", _KEY, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(63), nullable=False, unique=True),
        sa.Column("request_id", sa.String(64), nullable=True, unique=True),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("dataset_id", sa.String(63), nullable=False),
        sa.Column("grid", sa.Text(), nullable=False),
        sa.Column("split", sa.String(16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME, nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "study_members",
        sa.Column("study_id", sa.String(63), sa.ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("run_id", sa.String(63), nullable=False, unique=True),
        sa.Column("dataset_id", sa.String(63), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
    )
    op.create_index("members_by_state", "study_members", ["study_id", "state", "number"])
    op.create_index("members_by_change", "study_members", ["study_id", "sequence"])
    op.create_index("members_of_label_set", "study_members", ["dataset_id", "state"])


def downgrade() -> None:
    """Undo; studies are forgotten, their runs stay."""
    op.drop_table("study_members")
    op.drop_table("studies")
