"""Lists of runs by state, backend and dataset, in an order that an index has."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_LISTS = {"runs_of_state": "state", "runs_of_backend": "backend", "runs_in_dataset": "dataset_id"}


def upgrade() -> None:
    """Add an index for each list; that of deleted runs holds no others."""
    for name, column in _LISTS.items():
        op.create_index(name, "runs", [column, "number"])
    op.drop_index("runs_deleted", "runs")
    deleted = sa.text("deleted_at IS NOT NULL")
    op.create_index("runs_deleted", "runs", ["deleted_at"], sqlite_where=deleted, postgresql_where=deleted)


def downgrade() -> None:
    """Undo."""
    op.drop_index("runs_deleted", "runs")
    op.create_index("runs_deleted", "runs", ["deleted_at"])
    for name in _LISTS:
        op.drop_index(name, "runs")
