"""How many nodes attempts have, since one may go on with fewer than its run asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
only_adds = True

_COLUMNS = (("attempts", "nodes"), ("attempts", "min_nodes"), ("runs", "nodes"))


def upgrade() -> None:
    """Add the columns."""
    for table, name in _COLUMNS:
        op.add_column(table, sa.Column(name, sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    """Remove them."""
    for table, name in reversed(_COLUMNS):
        op.drop_column(table, name)
