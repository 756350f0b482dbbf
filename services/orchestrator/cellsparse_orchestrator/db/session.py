"""The database: migrated when opened, then used in short transactions whose failures have one clear status.

Writers lock the row that they change (`SELECT ... FOR UPDATE`) before they read anything that the change depends on.
SQLite has only one writer at a time, but PostgreSQL has many. Locks are taken in one order: a dataset's before its
runs'.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from cellsparse_common import tracing
from cellsparse_common.errors import CellsparseError, Unavailable
from cellsparse_orchestrator.db import first_release, lease
from cellsparse_orchestrator.db.engine import BUSY_SECONDS, is_sqlite, open_engine, shown
from cellsparse_orchestrator.db.fair_lock import FairLock
from cellsparse_orchestrator.db.holder import this_process
from cellsparse_orchestrator.db.migrate import Migration, layout_of, migrate
from cellsparse_orchestrator.db.publishing import Publishing

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.5


class Database:
    """The SQL database.

    Args:
        url: SQLAlchemy URL.
        seconds: How long to wait for a PostgreSQL server that does not answer yet.

    Attributes:
        name: The URL without its password.
        migration: What opening the database has changed.
        publishing: Keeps the collector away from objects that no row refers to yet.

    Raises:
        Unavailable: It cannot be opened or migrated.
        FailedPrecondition: A newer version has used it.
        InvalidArgument: The URL cannot be parsed.
    """

    def __init__(self, url: str, *, seconds: float = 0.0) -> None:
        self._engine = open_engine(url)
        self.name = shown(url)
        self.publishing = Publishing()
        self._holder = this_process()
        self._watch = lease.Watch(self._holder)
        self._fence: int | None = None
        # SQLite's own queue of writers is slow and unfair (see `fair_lock`).
        self._write_lock = FairLock() if is_sqlite(self._engine) else None
        with _clear_errors():
            self.migration = self._migrate(seconds)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a read-only transaction that sees one state of the database; raises Unavailable."""
        with self._recorded("read"), _clear_errors(), Session(self._engine) as session:
            if not is_sqlite(self._engine):
                options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                session.connection(execution_options=options)
            yield session

    @contextmanager
    def write(self, *, urgent: bool = False) -> Iterator[Session]:
        """Open a transaction that commits at the end of the `with` block, or rolls back on an exception.

        Args:
            urgent: With SQLite, go before all other waiting writers. For the reconciler alone, because GPUs stand idle
                while it waits.

        Raises:
            Unavailable: The database is locked, full or unreachable.
            LeaseLost: Another orchestrator has taken the lease that this one held.
        """
        with self._write(urgent=urgent) as session:
            if self._fence is not None:
                lease.check(session, self._fence)
            yield session

    @contextmanager
    def _write(self, *, urgent: bool = False) -> Iterator[Session]:
        with (
            self._recorded("write"),
            _clear_errors(),
            nullcontext() if self._write_lock is None else self._write_lock.hold(BUSY_SECONDS, urgent=urgent),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
            Session(connection) as session,
        ):
            yield session
            session.flush()

    @contextmanager
    def raw_connection(self) -> Iterator[Connection]:
        """Open a transaction that writes, for whoever changes whole tables; raises Unavailable."""
        with _clear_errors(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    @property
    def fence(self) -> int:
        """Number of our lease, which grows with every holder; 0: we never held it."""
        return self._fence or 0

    def try_lead(self) -> bool:
        """Take the lease if it is free or its holder dead; return whether it is ours. A standby calls this regularly.

        Raises:
            Unavailable: The database does not answer.
        """
        if self._fence is not None:
            return True
        try:
            with self.read() as session:
                seen = lease.look(session)
            if self._watch.may_take(seen):
                with self._write() as session:
                    taken = None if first_release.works(session) else lease.take(session, seen, self._holder)
                self._fence = taken
        except CellsparseError:
            self._watch.forget()
            raise
        return self._fence is not None

    def renew_lease(self) -> None:
        """Give a sign of life.

        Raises:
            LeaseLost: Another orchestrator has taken the lease.
            Unavailable: The database does not answer.
        """
        if self._fence is not None:
            with self._write(urgent=True) as session:
                lease.renew(session, self._fence)

    def confirm_lease(self) -> None:
        """Make sure that no other orchestrator has taken our lease; raises as `renew_lease`."""
        if self._fence is not None:
            with self.read() as session:
                if lease.look(session).fence != self._fence:
                    raise lease.LeaseLost

    def give_back_lease(self) -> None:
        """Let another orchestrator lead at once. From now on this one writes nothing more.

        Raises:
            Unavailable: The database does not answer.
        """
        if self._fence is not None:
            with self._write(urgent=True) as session:
                lease.give_back(session, self._fence)
            self._fence = -1

    def close(self) -> None:
        """Give back the lease, if it is ours, and close all connections."""
        try:
            self.give_back_lease()
        except CellsparseError as error:
            _LOG.info("the lease is not given back: %s", error.message)
        self.dispose()

    def dispose(self) -> None:
        """Close all connections, and leave the lease as it is."""
        self._engine.dispose()

    def _recorded(self, what: str) -> AbstractContextManager[tracing.Span]:
        """Record a transaction, the wait for its turn included; its statements would be many."""
        return tracing.span(f"SQL {what}", kind="client", attributes={"db.system.name": self._engine.dialect.name})

    def _migrate(self, seconds: float) -> Migration:
        end = time.monotonic() + (0.0 if is_sqlite(self._engine) else seconds)
        while True:
            try:
                with self._engine.connect() as connection:
                    return migrate(connection)
            except OperationalError as error:
                if time.monotonic() >= end:
                    raise
                _LOG.warning("the database %s does not answer yet: %s", self.name, _cause(error))
                time.sleep(_PAUSE_SECONDS)


def peek_layout(url: str) -> str:
    """Return the layout of a database without changing it, "" for one without tables.

    Raises:
        FailedPrecondition: A newer version of the orchestrator has used it.
        InvalidArgument: The URL cannot be parsed.
        Unavailable: It cannot be opened.
    """
    engine = open_engine(url)
    try:
        with _clear_errors(), engine.connect() as connection:
            return layout_of(connection)
    finally:
        engine.dispose()


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        # During an outage every call fails here. The message is enough; the traceback is always the same.
        _LOG.error("the database failed: %s", _cause(error), exc_info=not isinstance(error, OperationalError))
        raise Unavailable(f"The database does not answer ({_cause(error)}); try again.") from error


def _cause(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
