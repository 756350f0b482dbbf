"""Collections: one at a time, when an administrator asks for one or when it is time."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from cellsparse_common.errors import Cancelled, CellsparseError, FailedPrecondition
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.catalogue.spooling import upload_folder
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.collection.collector import Collector, Rules
from cellsparse_orchestrator.collection.ledger import open_ledger
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.home import spool_folder
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import admin_pb2

_LOG = logging.getLogger(__name__)
_FIRST_SECONDS = 900.0
"""A collection by the clock begins no sooner after the start: there is more urgent work then."""
_END_SECONDS = 10.0
_MIB = 2**20


class Collections:
    """Begins collections.

    Args:
        settings: Times, and the home folder.
        store: The store.
        database: The tables.
        sweep: Removes old uploads.
    """

    def __init__(
        self, settings: OrchestratorSettings, store: ObjectStore, database: Database, sweep: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._store = store
        self._database = database
        self._sweep = sweep
        self._lock = threading.Lock()

    def run(self, *, dry_run: bool, alive: Callable[[], None]) -> Iterator[admin_pb2.CollectResponse]:
        """Collect; yield progress and the summary (see `Collector.run`).

        Args:
            dry_run: Remove nothing.
            alive: Raises when the collection is to end.

        Raises:
            FailedPrecondition: A collection is under way already, or the store is another installation's.
        """
        if not self._lock.acquire(blocking=False):
            raise FailedPrecondition("A collection is under way already; wait for its end.")
        try:
            folder: Path = spool_folder(self._settings.home)
            rules = Rules(
                now=now(),
                grace=timedelta(days=self._settings.grace_days),
                wait=timedelta(hours=self._settings.collect_wait_hours),
                checkpoint_days=self._settings.checkpoint_days,
                dry_run=dry_run,
            )
            if not dry_run:
                self._sweep()
            with upload_folder(folder) as spool, open_ledger(spool) as ledger:
                yield from Collector(self._store, self._database, ledger, rules, alive).run()
        finally:
            self._lock.release()


class CollectionTimer(threading.Thread):
    """Collects again and again, in a thread of its own.

    Args:
        collections: Begins them.
        hours: How often; 0: never.
    """

    def __init__(self, collections: Collections, hours: float) -> None:
        super().__init__(name="collections", daemon=True)
        self._collections = collections
        self._seconds = hours * 3600
        self._end = threading.Event()

    def run(self) -> None:
        """Collect until `stop`."""
        if not self._seconds or self._end.wait(min(self._seconds, _FIRST_SECONDS)):
            return
        while True:
            try:
                self._collect()
            except CellsparseError as error:
                _LOG.warning("the store is not collected now: %s", error.message)
            except Exception:  # noqa: BLE001 - logged whole; the next collection may do better
                _LOG.exception("the store is not collected now")
            if self._end.wait(self._seconds):
                return

    def stop(self) -> None:
        """End the thread soon."""
        self._end.set()
        if self.is_alive():
            self.join(_END_SECONDS)

    def _collect(self) -> None:
        for answer in self._collections.run(dry_run=False, alive=self._look):
            summary = answer.summary
            for sentence in summary.left_out:
                _LOG.warning("%s", sentence)
            if summary.objects or summary.expired:
                size = summary.bytes / _MIB
                _LOG.info("collected %d objects (%.1f MiB), %d rows", summary.objects, size, summary.expired)

    def _look(self) -> None:
        if self._end.is_set():
            raise Cancelled("The orchestrator is stopping.")
