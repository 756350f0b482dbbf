"""Orchestrators of release 0.1.0: they know no lease, and hold a lock of PostgreSQL's instead."""

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

_TRY = text("SELECT pg_try_advisory_xact_lock(7205002, hashtext(current_schema()))")


def works(session: Session | Connection) -> bool:
    """Return whether an orchestrator of 0.1.0 works with the database; the answer holds until the transaction ends.

    With SQLite there is none: the lock of the home folder is the same in all releases.
    """
    connection = session if isinstance(session, Connection) else session.connection()
    return connection.dialect.name == "postgresql" and not connection.scalar(_TRY)
