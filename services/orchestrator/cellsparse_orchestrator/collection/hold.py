"""Keeps collections off while a backup goes on, which may be another process on another machine."""

from datetime import datetime

from sqlalchemy import delete, select

from cellsparse_common.errors import FailedPrecondition
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import HoldRow

_NAME = "backup"


def hold_collections(database: Database, until: datetime) -> None:
    """Let no collection remove anything until some time."""
    with database.write() as session:
        session.merge(HoldRow(name=_NAME, until=until))


def release_collections(database: Database) -> None:
    """Let collections go on."""
    with database.write() as session:
        session.execute(delete(HoldRow).where(HoldRow.name == _NAME))


def refuse_while_held(database: Database) -> None:
    """Raise FailedPrecondition while a backup goes on."""
    with database.read() as session:
        until = session.scalar(select(HoldRow.until).where(HoldRow.name == _NAME))
    if until is not None and until > now():
        raise FailedPrecondition(
            f"A backup is under way: nothing is collected before its end, or before {until:%Y-%m-%d %H:%M} UTC if it "
            "was killed."
        )
