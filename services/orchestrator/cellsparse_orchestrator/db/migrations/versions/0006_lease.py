"""The lease of the orchestrator that leads, and where attempts were started."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the lease, which nobody holds, and add the trainers of attempts."""
    leases = op.create_table(
        "leases",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
    )
    op.bulk_insert(leases, [{"name": "orchestrator", "fence": 0, "beat": 0, "holder": ""}])
    with op.batch_alter_table("attempts") as table:
        table.add_column(sa.Column("trainer", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Undo; attempts are looked for at the trainers of the orchestrator that leads."""
    with op.batch_alter_table("attempts") as table:
        table.drop_column("trainer")
    op.drop_table("leases")
