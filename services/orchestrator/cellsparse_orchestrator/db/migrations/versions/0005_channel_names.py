"""Names of the channels of projects' images."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the names; images that are there have none, and their files say which channels they hold."""
    op.add_column("project_images", sa.Column("channel_names", sa.Text(), nullable=False, server_default="[]"))


def downgrade() -> None:
    """Remove the names."""
    op.drop_column("project_images", "channel_names")
