"""Whose projects are whose."""

from sqlalchemy import ColumnElement, or_

from cellsparse_orchestrator.caller import owned
from cellsparse_orchestrator.db.tables import ProjectRow


def owned_projects() -> ColumnElement[bool]:
    """Return the condition for the caller's projects: that of their token, and those made with its tokens."""
    return or_(owned(ProjectRow.id), owned(ProjectRow.owner_id))
