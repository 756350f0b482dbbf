"""Tokens, the record of changes, and the project that each thing belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_OWNED = ("datasets", "runs", "models", "studies")


def upgrade() -> None:
    """Add owners. What was trained from a project's annotations belongs to it, all else to no project."""
    for table in _OWNED:
        op.add_column(table, sa.Column("project_id", sa.String(63)))
    op.execute("UPDATE runs SET project_id = (SELECT project_id FROM project_runs WHERE run_id = runs.id)")
    op.execute("UPDATE models SET project_id = (SELECT project_id FROM runs WHERE runs.id = models.id)")
    op.execute(
        "UPDATE datasets SET project_id = "
        "(SELECT MIN(project_id) FROM runs WHERE runs.dataset_id = datasets.id AND runs.project_id IS NOT NULL)"
    )
    for table in _OWNED:
        op.create_index(f"{table}_of_owner", table, ["project_id", "number"])
    op.add_column("projects", sa.Column("owner_id", sa.String(63)))
    op.create_index("projects_of_owner", "projects", ["owner_id", "number"])
    _copy_aliases(with_owner=True)
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "tokens",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(63), nullable=False, unique=True),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("project_id", sa.String(63)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("used_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "changes",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("token_id", sa.String(63), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("project_id", sa.String(63), nullable=False),
        sa.Column("method", sa.String(100), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("result", sa.String(32), nullable=False),
    )
    op.create_index("ix_changes_time", "changes", ["time"])
    op.create_index("changes_of_token", "changes", ["token_id", "number"])
    op.create_index("changes_of_project", "changes", ["project_id", "number"])


def downgrade() -> None:
    """Undo; tokens and the record of changes are lost."""
    op.drop_table("changes")
    op.drop_table("tokens")
    _copy_aliases(with_owner=False)
    op.drop_index("projects_of_owner", "projects")
    op.drop_column("projects", "owner_id")
    for table in _OWNED:
        op.drop_index(f"{table}_of_owner", table)
        op.drop_column(table, "project_id")


def _copy_aliases(*, with_owner: bool) -> None:
    """Make the table of aliases anew: the owner is part of its key."""
    owner = [sa.Column("owner", sa.String(63), primary_key=True)] if with_owner else []
    op.create_table(
        "new_aliases",
        *owner,
        sa.Column("backend", sa.String(32), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("project_id", sa.String(63), nullable=False),
        sa.Column("model_id", sa.String(63), nullable=False),
    )
    if with_owner:
        op.execute(
            "INSERT INTO new_aliases (owner, backend, name, project_id, model_id) "
            "SELECT '', backend, name, project_id, model_id FROM aliases"
        )
    else:
        op.execute(
            "INSERT INTO new_aliases (backend, name, project_id, model_id) "
            "SELECT backend, name, project_id, model_id FROM aliases WHERE owner = ''"
        )
    op.drop_table("aliases")
    op.rename_table("new_aliases", "aliases")
