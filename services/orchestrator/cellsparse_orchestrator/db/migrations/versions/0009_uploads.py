"""Uploads that resume."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "uploads",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("project_id", sa.String(63), primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("used", sa.Boolean(), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_uploads_touched_at", "uploads", ["touched_at"])
    op.create_index("uploads_of_project", "uploads", ["project_id"])


def downgrade() -> None:
    """Undo; unfinished uploads begin anew."""
    op.drop_table("uploads")
