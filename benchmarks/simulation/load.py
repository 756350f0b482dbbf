"""Measure the orchestrator's load on its database and the machine, without changing its code."""

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, event

from cellsparse_orchestrator.db.fair_lock import FairLock

_SAMPLE_SECONDS = 1.0
_RECONCILE = "cellsparse_reconcile_seconds"
_END_SECONDS = 5.0


class DatabaseLoad:
    """Counts the operations of all database engines in this process after `listen`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._began = threading.local()

    def listen(self) -> None:
        """Start to count."""
        event.listen(Engine, "before_cursor_execute", self._before)
        event.listen(Engine, "after_cursor_execute", self._after)
        event.listen(Engine, "commit", self._commit)
        enter = FairLock._acquire

        def timed(lock: FairLock, seconds: float, urgent: bool) -> bool:
            began = time.perf_counter()
            try:
                return enter(lock, seconds, urgent)
            finally:
                with self._lock:
                    self._counts["lock_seconds"] += time.perf_counter() - began

        FairLock._acquire = timed  # this wait comes before SQLite's own, which is part of BEGIN IMMEDIATE

    def counts(self) -> dict[str, float]:
        """Return the counts so far; names with `seconds` are times."""
        with self._lock:
            return dict(self._counts)

    def _before(self, *_: Any) -> None:
        self._began.time = time.perf_counter()

    def _after(
        self, _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, executemany: bool
    ) -> None:
        seconds = time.perf_counter() - self._began.time
        with self._lock:
            if statement.startswith("BEGIN IMMEDIATE"):
                self._counts["lock_waits"] += 1
                self._counts["lock_seconds"] += seconds
            else:
                self._counts["statements"] += 1
                self._counts["statement_seconds"] += seconds
            if statement.startswith("INSERT INTO events"):
                self._counts["events"] += len(parameters) if executemany else 1

    def _commit(self, _connection: Any) -> None:
        with self._lock:
            self._counts["commits"] += 1


class Sampler(threading.Thread):
    """Writes a JSON line once a second with the resources and operations of this process so far.

    Args:
        path: The file to write.
        load: The counters of the database.
        registry: The orchestrator's metrics.
    """

    def __init__(self, path: Path, load: DatabaseLoad, registry: CollectorRegistry) -> None:
        super().__init__(name="sampler", daemon=True)
        self._path = path
        self._load = load
        self._registry = registry
        self._end = threading.Event()

    def run(self) -> None:
        """Write until `stop`."""
        process = psutil.Process()
        with self._path.open("w") as file:
            while True:
                sample = {
                    "time": time.time(),
                    "cpu_seconds": time.process_time(),
                    "rss_mib": process.memory_info().rss / 2**20,
                    "threads": process.num_threads(),
                    "files": process.num_fds(),
                    **self._looks(),
                    **self._load.counts(),
                }
                file.write(json.dumps(sample) + "\n")
                file.flush()
                if self._end.wait(_SAMPLE_SECONDS):
                    return

    def _looks(self) -> dict[str, float]:
        """Return the number and the time of the reconciler's passes; other metrics would query the database."""
        names = {f"{_RECONCILE}_count": "looks", f"{_RECONCILE}_sum": "look_seconds"}
        families = self._registry.restricted_registry(list(names)).collect()
        return {names[sample.name]: sample.value for family in families for sample in family.samples}

    def stop(self) -> None:
        """Write a last line and end."""
        self._end.set()
        self.join(_END_SECONDS)
