"""Whether everything is there that the orchestrator needs to do its work; told by health checks, and by nothing else.

What is away is waited for: no call is refused and no process restarted because of what is found here.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import text

from cellsparse_common.errors import CellsparseError
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.runs.reconciler import RunReconciler

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS = 3.0
_END_SECONDS = 1.0
_HANGING_SECONDS = 60.0
"""After so long without an answer a check counts as failed: a disk of a server that is gone may not even refuse."""
_STUCK_SECONDS = 120.0
_LEAST_FREE_BYTES = 64 * 2**20
Check = Callable[[], str]
"""Returns what is wrong as a sentence; empty if nothing is. May raise CellsparseError."""


class ReadinessWatch(threading.Thread):
    """Makes all checks again and again, in a thread of its own.

    Args:
        checks: The checks; the first problem is told.
    """

    def __init__(self, checks: list[Check]) -> None:
        super().__init__(name="readiness-watch", daemon=True)
        self._checks = checks
        self._problem = ""
        self._began: float | None = None
        self._end = threading.Event()

    @property
    def problem(self) -> str:
        """What is missing, as a sentence; empty: nothing, as far as anybody has looked."""
        began = self._began
        if began is not None and time.monotonic() - began > _HANGING_SECONDS:
            return self._problem or f"A check of what is needed has not answered for {_HANGING_SECONDS:.0f} s."
        return self._problem

    def run(self) -> None:
        """Look until `stop`."""
        while not self._end.is_set():
            self._began = time.monotonic()
            problem = self.look()
            self._began = None
            if problem != self._problem:
                _LOG.warning("not ready: %s", problem) if problem else _LOG.warning("ready again")
            self._problem = problem
            self._end.wait(_PAUSE_SECONDS)

    def stop(self) -> None:
        """End the thread soon."""
        self._end.set()
        if self.is_alive():
            self.join(_END_SECONDS)

    def look(self) -> str:
        """Make the checks; return the first problem."""
        for check in self._checks:
            try:
                problem = check()
            except CellsparseError as error:
                return error.message
            except Exception:  # noqa: BLE001 - logged whole; a check that fails is a problem, too
                _LOG.exception("a check failed")
                return "A check of what is needed failed; the log has the details."
            if problem:
                return problem
        return ""


def database_check(database: Database) -> Check:
    """Return the check that the database answers."""

    def check() -> str:
        with database.read() as session:
            session.execute(text("SELECT 1"))
        return ""

    return check


def store_check(store: ObjectStore) -> Check:
    """Return the check that the store answers and, for a folder, that there is room for objects."""
    parts = urlsplit(store.url)

    def check() -> str:
        store.check()
        return _full(Path(unquote(parts.path)), "the store") if parts.scheme == "file" else ""

    return check


def disk_check(folder: Path) -> Check:
    """Return the check that the home folder has room for uploads, logs and an embedded database."""
    return lambda: _full(folder, "the home folder")


def reconciler_check(reconciler: RunReconciler) -> Check:
    """Return the check that the reconciler, once it has begun, looks at the runs again and again."""

    def check() -> str:
        if reconciler.ident is None:
            return ""
        if not reconciler.is_alive():
            return "The reconciler of runs has ended; restart the orchestrator."
        seconds = time.monotonic() - reconciler.looked
        return f"The reconciler has not looked at the runs for {seconds:.0f} s." if seconds > _STUCK_SECONDS else ""

    return check


def _full(folder: Path, what: str) -> str:
    there = next((each for each in (folder, *folder.parents) if each.exists()), None)
    if there is None or shutil.disk_usage(there).free >= _LEAST_FREE_BYTES:
        return ""
    return f"The disk of {what} is full: less than {_LEAST_FREE_BYTES // 2**20} MiB are free."
