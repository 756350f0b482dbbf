"""Models that no run has trained, and what a model's training started from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The name that PostgreSQL gave the key; SQLite has kept none, and finds it by this rule.
_NAMES = {"fk": "%(table_name)s_%(column_0_name)s_fkey"}
_KEY = "models_id_fkey"
_OPTIONS = {"sqlite_autoincrement": True}


def upgrade() -> None:
    """Drop the foreign key to runs, and add the columns of initial models."""
    with op.batch_alter_table("models", naming_convention=_NAMES, table_kwargs=_OPTIONS) as table:
        table.drop_constraint(_KEY, type_="foreignkey")
        table.add_column(sa.Column("initial_model", sa.String(63), nullable=False, server_default=""))
        table.add_column(sa.Column("start_validation", sa.Text(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Undo this revision; imported models are deleted."""
    op.execute("DELETE FROM models WHERE id NOT IN (SELECT id FROM runs)")
    with op.batch_alter_table("models", table_kwargs=_OPTIONS) as table:
        table.drop_column("start_validation")
        table.drop_column("initial_model")
        table.create_foreign_key(_KEY, "runs", ["id"], ["id"], ondelete="CASCADE")
