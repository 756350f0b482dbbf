"""Deleted things, what a collection has seen, limits of projects, and the id of an installation."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_DELETABLE = ("datasets", "runs", "models", "studies", "projects")
_MEASURED = ("datasets", "models", "project_images")


def upgrade() -> None:
    """Add the columns and tables."""
    for table in _DELETABLE:
        op.add_column(table, sa.Column("deleted_at", sa.DateTime(timezone=True)))
        op.create_index(f"{table}_deleted", table, ["deleted_at"])
    for table in _MEASURED:
        op.add_column(table, sa.Column("stored_bytes", sa.BigInteger()))
    op.create_table(
        "unreferenced",
        sa.Column("key", sa.String(900), primary_key=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table("installation", sa.Column("id", sa.String(63), primary_key=True))
    op.create_table(
        "holds",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "project_limits",
        sa.Column("project_id", sa.String(63), primary_key=True),
        sa.Column("checkpoint_days", sa.Integer()),
        sa.Column("max_bytes", sa.BigInteger()),
        sa.Column("max_items", sa.BigInteger()),
        sa.Column("max_runs", sa.Integer()),
        sa.Column("max_gpu_hours", sa.Float()),
    )


def downgrade() -> None:
    """Undo; what was deleted and could have been undeleted is there again."""
    op.drop_table("project_limits")
    op.drop_table("holds")
    op.drop_table("installation")
    op.drop_table("unreferenced")
    for table in _MEASURED:
        op.drop_column(table, "stored_bytes")
    for table in _DELETABLE:
        op.drop_index(f"{table}_deleted", table)
        op.drop_column(table, "deleted_at")
