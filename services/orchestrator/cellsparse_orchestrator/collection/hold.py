"""Keeps collections off while a backup goes on, which may be another process on another machine."""

from datetime import datetime

from sqlalchemy import delete, func, select

from cellsparse_common.errors import FailedPrecondition
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import HoldRow

BACKUP, PRUNE = "backup", "prune"
"""What holds: the beginning of its name. Several may at the same time."""


def hold(database: Database, name: str, until: datetime) -> None:
    """Say that something goes on, until some time at the longest.

    Args:
        database: The tables.
        name: `BACKUP` or `PRUNE`, "-" and what tells it from others; at most 16 characters.
        until: When it is taken for dead.
    """
    with database.write() as session:
        session.merge(HoldRow(name=name, until=until))


def release(database: Database, name: str) -> None:
    """Say that it has ended."""
    with database.write() as session:
        session.execute(delete(HoldRow).where((HoldRow.name == name) | (HoldRow.until < now())))


def held_until(database: Database, what: str, but_not: str = "") -> datetime | None:
    """Return how long backups, or removals of snapshots, may go on that are under way; None if there are none.

    Args:
        database: The tables.
        what: `BACKUP` or `PRUNE`.
        but_not: Name of one that is left out.
    """
    query = select(func.max(HoldRow.until)).where(HoldRow.name.startswith(what), HoldRow.name != but_not)
    with database.read() as session:
        until = session.scalar(query)
    return until if until is not None and until > now() else None


def refuse_while_held(database: Database) -> None:
    """Raise FailedPrecondition while a backup goes on."""
    until = held_until(database, BACKUP)
    if until is not None:
        raise FailedPrecondition(
            f"A backup is under way: nothing is collected before its end, or before {until:%Y-%m-%d %H:%M} UTC if it "
            "was killed."
        )
