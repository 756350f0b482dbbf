"""Exclusive ownership of a database: two orchestrators on one database would start more runs than there are slots.

PostgreSQL keeps the ownership as an advisory lock of one connection. The lock ends with its process, however that
ends. SQLite needs none: its file is in a home folder, which has its own lock.
"""

import logging
import time

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cellsparse_common.errors import FailedPrecondition
from cellsparse_orchestrator.db.engine import is_sqlite

_LOG = logging.getLogger(__name__)
# Any constant will do, as long as all orchestrators use the same one. Two schemas count as two databases.
_TAKE = text("SELECT pg_try_advisory_lock(7205002, hashtext(current_schema()))")
_PAUSE_SECONDS = 0.25
_CONFIRM_SECONDS = 1.0


class Ownership:
    """The ownership of a database; not thread-safe.

    Args:
        engine: The database.
        name: The database's name for messages.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._connection: Connection | None = None
        self._confirmed = 0.0

    def take(self, seconds: float) -> None:
        """Take the ownership within some seconds.

        Raises:
            FailedPrecondition: Another orchestrator has it and keeps it.
            SQLAlchemyError: The database does not answer.
        """
        if is_sqlite(self._engine):
            return
        end = time.monotonic() + seconds
        while not self._try():
            if time.monotonic() >= end:
                raise FailedPrecondition(
                    f"Another orchestrator works with the database {self._name}; stop it, or give this one another "
                    "CELLSPARSE_DATABASE_URL."
                )
            time.sleep(_PAUSE_SECONDS)

    def confirm(self) -> None:
        """Make sure that we still have the ownership; take it again if its connection was lost.

        Raises:
            FailedPrecondition: Another orchestrator has taken it.
            SQLAlchemyError: The database does not answer.
        """
        if is_sqlite(self._engine) or time.monotonic() - self._confirmed < _CONFIRM_SECONDS:
            return
        try:
            if self._connection is not None:
                self._connection.execute(text("SELECT 1"))
                self._confirmed = time.monotonic()
                return
        except SQLAlchemyError:
            _LOG.warning("the connection that holds the database was lost; taking it again")
            self.release()
        self.take(0.0)

    def release(self) -> None:
        """Give up the ownership; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Close it for real instead of returning it to the pool: the lock belongs to the connection.
            connection.invalidate()
            connection.close()

    def _try(self) -> bool:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            if connection.scalar(_TAKE):
                self._connection, self._confirmed = connection, time.monotonic()
        finally:
            if self._connection is not connection:
                connection.close()
        return self._connection is connection
