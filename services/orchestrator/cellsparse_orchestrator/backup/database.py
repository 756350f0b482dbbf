"""The database as lines of JSON, the same for SQLite and PostgreSQL: one state of all tables, and its way back."""

import base64
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, func, insert, select, text
from sqlalchemy.orm import Session

from cellsparse_common.errors import Damaged, FailedPrecondition
from cellsparse_orchestrator.db import migrate
from cellsparse_orchestrator.db.tables import Base

_ROWS = 500
_OWN = ("leases", "readers")
"""Tables that have a row from the start."""
Row = dict[str, Any]


def dump(session: Session, layout: str, path: Path) -> None:
    """Write all tables as one transaction sees them.

    Args:
        session: A read-only transaction.
        layout: The database's layout, which is the newest.
        path: Receives the file, compressed.
    """
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=4) as file:
        file.write(json.dumps({"layout": layout}) + "\n")
        for table in Base.metadata.sorted_tables:
            columns = [column.name for column in table.columns]
            file.write(json.dumps({"table": table.name, "columns": columns}) + "\n")
            for row in session.execute(select(table), execution_options={"yield_per": _ROWS}):
                file.write(json.dumps([_encode(value) for value in row]) + "\n")


def read(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield table and row of all rows of a dump; first ("", {"layout": ...}).

    Raises:
        Damaged: It is no dump.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            head = json.loads(next(file))
            yield "", {"layout": str(head["layout"])}
            table, columns = "", []
            for line in file:
                found = json.loads(line)
                if isinstance(found, dict):
                    table, columns = found["table"], found["columns"]
                else:
                    values = [_decode(value) for value in found]
                    yield table, dict(zip(columns, values, strict=True))
    except (OSError, EOFError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise Damaged(f"The database of the backup cannot be read: {error}.") from error


def load(connection: Connection, path: Path) -> None:
    """Bring an empty database to a dump's layout, fill it, and migrate it to the newest layout; all or nothing.

    Args:
        connection: Inside a transaction that writes.
        path: The dump.

    Raises:
        FailedPrecondition: The dump is of a newer version, or the database is not empty.
        Damaged: It is no dump.
    """
    rows = read(path)
    layout = next(rows)[1]["layout"]
    if not migrate.is_known(layout):
        raise FailedPrecondition(f"The backup has layout {layout} of a newer version; restore it with that one.")
    migrate.bring(connection, layout)
    known = MetaData()
    known.reflect(connection)
    tables = [table for table in known.sorted_tables if table.name != "alembic_version"]
    for table in tables:
        if table.name not in _OWN and connection.scalar(select(func.count()).select_from(table)):
            raise FailedPrecondition(f"The database is not empty: table {table.name} has rows; restore into a new one.")
    for table in reversed(tables):
        connection.execute(table.delete())
    for name, group in _batches(rows):
        connection.execute(insert(known.tables[name]), group)
    connection.execute(text("UPDATE leases SET holder = '', fence = fence + 1"))
    if connection.dialect.name == "postgresql":
        for table in tables:
            if "number" in table.columns and table.columns["number"].autoincrement and len(table.primary_key) == 1:
                _advance(connection, table.name)
    migrate.bring(connection, "head")


def _advance(connection: Connection, table: str) -> None:
    """Let PostgreSQL number new rows after those that were loaded."""
    connection.execute(
        text(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'number'), "  # noqa: S608 - a name of our own tables
            f"COALESCE((SELECT MAX(number) FROM {table}), 0) + 1, false)"
        )
    )


def _batches(rows: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, list[Row]]]:
    """Yield rows in groups of the same table."""
    waiting: list[Row] = []
    last = ""
    for table, row in rows:
        if waiting and (table != last or len(waiting) == _ROWS):
            yield last, waiting
            waiting = []
        last = table
        waiting.append(row)
    if waiting:
        yield last, waiting


def _encode(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"time": value.astimezone(UTC).isoformat()}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return value


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return datetime.fromisoformat(value["time"]) if "time" in value else base64.b64decode(value["bytes"])
