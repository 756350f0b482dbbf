"""Which earlier layouts' releases work with this one, and a setting of StarDist under its new name."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_NAMES = ('"darkShare"', '"likelyBackground"')
"""The field in the JSON of settings, in release 0.1.0 and since."""


def upgrade() -> None:
    """Create the table of readers, whose row `db.readers` writes, and rename the setting."""
    op.create_table(
        "readers",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("oldest", sa.String(32), nullable=False),
    )
    _rename(*_NAMES)


def downgrade() -> None:
    """Undo."""
    op.drop_table("readers")
    _rename(*reversed(_NAMES))


def _rename(old: str, new: str) -> None:
    """Rename the field in settings of StarDist; those of other backends have had the new name all along."""
    renamed = f"REPLACE(settings, '{old}', '{new}')"
    op.execute(f"UPDATE runs SET settings = {renamed} WHERE backend = 'stardist'")  # noqa: S608 - constants
    op.execute(f"UPDATE study_members SET settings = {renamed} WHERE settings LIKE '%\"stardist\"%'")  # noqa: S608
