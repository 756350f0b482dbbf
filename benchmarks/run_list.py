"""Pages of a list of 100,000 runs, with SQLite and with PostgreSQL: how long each call takes.

Runs are put straight into the database: the newer half is queued, every 50th run belongs to another dataset, and every
1,000th was cancelled. The oldest waits for another attempt, and holds the only slot. Then a real orchestrator without
trainers lists them, newest first, 50 a page, from one end to the other and with filters. PostgreSQL is told to look at
its tables before, as it does by itself once they have grown.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from sqlalchemy import insert, text
from support.interrupts import sigterm_interrupts
from support.orchestrator import Orchestrator
from support.postgres import NoPostgres, Postgres

from cellsparse_orchestrator.db.engine import open_engine
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import RunRow
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

AIM_MS = 50.0
PAGE = 50
STEP = 5_000


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, str]]:
    """Give the URL of an empty database of each kind that there is."""
    found = {"sqlite": f"sqlite:///{folder / 'runs.db'}"}
    server = Postgres()
    try:
        server.__enter__()
        found["postgresql"] = server.create_database()
    except NoPostgres as error:
        print(f"PostgreSQL is left out: {error}")
    yield found
    server.__exit__()


def state(number: int, runs: int) -> str:
    """Return the state of a run."""
    if number == 0:
        return "RETRYING"
    if number % 1000 == 0:
        return "CANCELLED"
    return "QUEUED" if number >= runs // 2 else "SUCCEEDED"


def fill(url: str, runs: int) -> None:
    """Put runs into a database."""
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), steps=100)
    database = Database(url)
    for begin in range(0, runs, STEP):
        rows = [
            {
                "id": f"run-{number}",
                "request_sha256": "",
                "name": f"run {number}",
                "backend": ("unet", "cellpose")[number % 2],
                "dataset_id": "ds-rare" if number % 50 == 0 else "ds-usual",
                "settings": json_format.MessageToJson(settings, indent=None),
                "max_attempts": 3,
                "priority": number % 3,
                "state": state(number, runs),
                "created_at": datetime.now(UTC),
                "retry_at": datetime.now(UTC) + timedelta(hours=20) if number == 0 else None,
            }
            for number in range(begin, min(begin + STEP, runs))
        ]
        with database.write() as session:
            session.execute(insert(RunRow), rows)
    database.close()
    if url.startswith("postgresql"):
        with open_engine(url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def times(orchestrator: Orchestrator, most: int = 10**9, **chosen: Any) -> list[float]:
    """Return the milliseconds of each page of a list."""
    found, token = [], ""
    while len(found) < most:
        page = common_pb2.PageRequest(page_size=PAGE, page_token=token)
        begin = time.perf_counter()
        answer = orchestrator.runs.ListRuns(orchestrator_pb2.ListRunsRequest(page=page, **chosen), timeout=60)
        found.append(1000 * (time.perf_counter() - begin))
        token = answer.next_page_token
        if not token:
            break
    return found


def main() -> None:
    """Measure and write the figures."""
    sigterm_interrupts()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000, help="runs in the database")
    parser.add_argument("--pages", type=int, default=10**9, help="most pages of a list")
    parser.add_argument("--out", type=Path, default=Path("out/bench/run_list.json"))
    options = parser.parse_args()
    lists: dict[str, dict[str, Any]] = {
        "all": {},
        "one state": {"states": [common_pb2.RUN_STATE_CANCELLED]},
        "two states": {"states": [common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_CANCELLED]},
        "no such state": {"states": [common_pb2.RUN_STATE_FAILED]},
        "one backend": {"backend": "unet"},
        "no such backend": {"backend": "stardist"},
        "one dataset": {"dataset_id": "ds-rare"},
    }
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder)) as urls:
        for kind, url in urls.items():
            fill(url, options.runs)
            home = Path(folder) / kind
            extra = {
                "CELLSPARSE_LAUNCHER": "static",
                "CELLSPARSE_DATABASE_URL": url,
                "CELLSPARSE_RETRY_LIMIT_SECONDS": "86400",
            }
            with Orchestrator(home, **extra) as orchestrator:
                for name, chosen in lists.items():
                    found = sorted(times(orchestrator, options.pages, **chosen))
                    p99 = found[min(len(found) - 1, int(0.99 * len(found)))]
                    figures[f"{kind}, {name}"] = {
                        "pages": len(found), "p50_ms": found[len(found) // 2], "p99_ms": p99, "max_ms": found[-1]
                    }  # fmt: skip
                    print(f"{kind:11} {name:15} {len(found):6} pages  p50 {found[len(found) // 2]:6.1f} ms  "
                          f"p99 {p99:6.1f} ms  (aim: {AIM_MS:g})")  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
