"""Opens the database: migrations first, then short transactions whose failures are one clear status."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from cellsparse_common.errors import Unavailable

_LOG = logging.getLogger(__name__)
_BUSY_SECONDS = 15
# Any constant will do: it only has to be the same in every orchestrator that shares the database.
_MIGRATION_LOCK = 7_205_001


class Database:
    """The SQL database.

    Args:
        url: SQLAlchemy URL.

    Raises:
        Unavailable: It cannot be opened or brought to the newest layout.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        with _clear_errors(), self._engine.connect() as connection:
            _migrate(connection)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads and sees one state of the database; raises Unavailable."""
        with _clear_errors(), Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed at the end of the `with` block, or rolled back by an exception.

        Raises:
            Unavailable: The database is locked, full or unreachable.
        """
        with (
            _clear_errors(),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
            Session(connection) as session,
        ):
            yield session
            session.flush()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=30, pool_timeout=_BUSY_SECONDS)
    engine = create_engine(
        url,
        pool_size=10,
        max_overflow=200,
        pool_timeout=_BUSY_SECONDS,
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver begins transactions late, in a way that makes readers who turn writers fail: we say BEGIN ourselves.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={_BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: Connection) -> None:
    """Bring the database to the newest layout, one orchestrator at a time."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    locked = connection.execution_options(writes=True)
    with locked.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = locked
        command.upgrade(config, "head")


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, SQLAlchemyError) as error:
        _LOG.exception("the database failed")
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise Unavailable(f"The database does not answer ({cause}); try again.") from error
