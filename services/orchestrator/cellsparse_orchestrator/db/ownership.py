"""One orchestrator at a time works with a database: two would start more runs than there are places.

PostgreSQL keeps the ownership as a lock of one connection, so it ends with its process, however that ends. SQLite needs
none: the file lies in a home folder, which has a lock of its own.
"""

import logging
import time

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from cellsparse_common.errors import FailedPrecondition
from cellsparse_orchestrator.db.engine import is_sqlite

_LOG = logging.getLogger(__name__)
# Any constant will do, as long as all orchestrators have the same; two schemas of one database are two databases.
_TAKE = text("SELECT pg_try_advisory_lock(7205002, hashtext(current_schema()))")
_PAUSE_SECONDS = 0.25
_CONFIRM_SECONDS = 1.0


class Ownership:
    """The ownership of a database. To be used from one thread at a time.

    Args:
        engine: The database.
        name: The database for people.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._connection: Connection | None = None
        self._confirmed = 0.0

    def take(self, seconds: float) -> None:
        """Become the owner, within some seconds.

        Raises:
            FailedPrecondition: Another orchestrator is, and stays so.
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
        """Make sure that the database is still ours; one that was lost with its connection is taken again.

        Raises:
            FailedPrecondition: Another orchestrator has taken it meanwhile.
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
        """Let go; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Closed and not given back to the pool: the lock belongs to the connection.
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
