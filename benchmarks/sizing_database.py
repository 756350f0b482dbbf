"""What runs and their events take in the SQL database: real rows, copied often enough that a page does not count."""

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, insert, make_url, select, text
from support.postgres import NoPostgres, Postgres

from cellsparse_orchestrator.db.engine import open_engine
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AttemptRow, EventRow, ModelRow, RunRow

TABLES = (RunRow, AttemptRow, ModelRow)
"""What every run has in the database, besides its events."""
RUNS, EVENTS = 1000, 20_000
"""Copies that are measured."""
Rows = dict[type, list[dict[str, Any]]]


def measure(source: Path, folder: Path) -> dict[str, Any]:
    """Copy the rows of the runs of an orchestrator's database into empty ones, and return what they take there.

    Args:
        source: An SQLite database in which trainings have ended.
        folder: An empty folder.
    """
    rows = _rows(open_engine(f"sqlite:///{source}"))
    runs = len(rows[RunRow])
    found: dict[str, Any] = {
        "rows_per_run": {table.__tablename__: len(rows[table]) / runs for table in TABLES},
        "events_per_second": _event_rate(rows),
        "kib": {},
    }
    found["kib"]["sqlite"] = sizes(f"sqlite:///{folder / 'copies.db'}", rows)
    try:
        with Postgres() as server:
            found["kib"]["postgresql"] = sizes(server.create_database(), rows)
    except NoPostgres as error:
        print(f"PostgreSQL is left out: {error}")
    return found


def sizes(url: str, rows: Rows) -> dict[str, float]:
    """Return KiB per run, and per 1,000 events, in a database; indexes count."""
    Database(url).close()  # makes the tables
    engine = open_engine(url)
    empty = _bytes(url)
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(insert(table), [_copy(rows[table], number) for number in range(RUNS)])
    with_runs = _bytes(url)
    each = EVENTS // RUNS
    with engine.begin() as connection:
        events = [
            {**_copy(rows[EventRow], n), "run_id": f"run-{n // each}", "sequence": n % each} for n in range(EVENTS)
        ]
        connection.execute(insert(EventRow), events)
    with_events = _bytes(url)
    engine.dispose()
    return {
        "empty": empty / 1024,
        "run": (with_runs - empty) / 1024 / RUNS,
        "1000_events": (with_events - with_runs) / 1024 / EVENTS * 1000,
    }


def _copy(rows: list[dict[str, Any]], number: int) -> dict[str, Any]:
    """Return one of the rows in turn, as that of another run."""
    new = {"number": number + 1, "id": f"run-{number}", "run_id": f"run-{number}", "request_id": f"request-{number}"}
    row = rows[number % len(rows)]
    kept = {name: new[name] for name in row if name in new}
    if "run_id" in row and "number" in row:  # an attempt's number is that of the run's first one
        kept["number"] = 1
    return {**row, **kept}


def _rows(engine: Engine) -> Rows:
    with engine.connect() as connection:
        found = {
            table: [dict(row) for row in connection.execute(select(table.__table__)).mappings()]
            for table in (*TABLES, EventRow)
        }
    engine.dispose()
    return found


def _event_rate(rows: Rows) -> float:
    """Return events per second between the first and the last of each run."""
    times: dict[str, list[datetime]] = {}
    for row in rows[EventRow]:
        times.setdefault(row["run_id"], []).append(row["time"])
    return len(rows[EventRow]) / sum((max(one) - min(one)).total_seconds() for one in times.values())


def _bytes(url: str) -> int:
    """Return how much a database takes, without room that is free in its files."""
    parsed = make_url(url)
    if parsed.drivername == "sqlite":
        with closing(sqlite3.connect(str(parsed.database), isolation_level=None)) as connection:
            connection.execute("VACUUM")
            pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
            return int(pages * size)
    engine = open_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
        session.execute(text("VACUUM"))
        found = int(session.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    engine.dispose()
    return found
