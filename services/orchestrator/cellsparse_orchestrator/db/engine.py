"""The connection pool: SQLite for one machine, PostgreSQL for a cluster."""

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from cellsparse_common.errors import InvalidArgument

BUSY_SECONDS = 15
"""Longest wait for a lock or a free connection."""
_STATEMENT_SECONDS = 60
_CONNECT_SECONDS = 5
_POSTGRESQL = ("postgresql+psycopg", "postgresql", "postgres")
_ALLOWED = "allowed are sqlite:////folder/file and postgresql+psycopg://user:password@host/database"

_UNREADABLE = f"The database URL cannot be read; {_ALLOWED}, with special characters of the password percent-encoded."


def open_engine(url: str) -> Engine:
    """Return the pool of connections to a database, without connecting.

    Raises:
        InvalidArgument: The URL cannot be parsed, or names another kind of database.
    """
    parsed = _parse(url)
    if parsed.drivername in _POSTGRESQL:
        return _postgresql(parsed)
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(parsed)
    raise InvalidArgument(f"The database URL begins with {parsed.drivername!r}; {_ALLOWED}.")


def shown(url: str) -> str:
    """Return a database's URL without its password, for messages."""
    parsed = _parse(url)
    return parsed.set(query={}).render_as_string(hide_password=True)


def is_sqlite(engine: Engine) -> bool:
    """Return whether an engine's database is SQLite."""
    return bool(engine.dialect.name == "sqlite")


def _parse(url: str) -> URL:
    # Never quote the URL: the part that cannot be parsed may be the password.
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidArgument(_UNREADABLE) from None
    # SQLAlchemy ends the password at the first "@", so that its rest would be taken for the name of the server or of
    # the database, which messages show.
    if parsed.drivername in _POSTGRESQL and url.partition("://")[2].partition(":")[2].count("@") > 1:
        raise InvalidArgument(_UNREADABLE)
    return parsed


def _sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=10,
        max_overflow=200,
        pool_timeout=BUSY_SECONDS,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver begins transactions late, so a reader that becomes a writer may fail. We send BEGIN ourselves.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgresql(url: URL) -> Engine:
    # Notice a server that vanished within seconds instead of the system's default of two hours.
    waits = {
        "connect_timeout": _CONNECT_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": BUSY_SECONDS * 1000,
        "application_name": "cellsparse-orchestrator",
    }
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=30,
        pool_timeout=BUSY_SECONDS,
        connect_args={name: value for name, value in waits.items() if name not in url.query},
    )
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_postgresql(connection: Any, _record: object) -> None:
    settings = {
        "timezone": "UTC",
        "lock_timeout": f"{BUSY_SECONDS}s",
        "statement_timeout": f"{_STATEMENT_SECONDS}s",
        "idle_in_transaction_session_timeout": f"{_STATEMENT_SECONDS}s",
        # The server must also notice a client that vanished, because that client holds the ownership lock.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }
    with connection.cursor() as cursor:
        for name, value in settings.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
    connection.commit()
