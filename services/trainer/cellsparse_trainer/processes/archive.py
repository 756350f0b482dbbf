"""Keeps an attempt's logs in the store, and frees its folder of what only a running attempt needs."""

import logging
import shutil

from cellsparse_common.errors import CellsparseError
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_trainer.processes.job import Job

EVENTS_FILE, LOG_FILE = "events.jsonl", "log.txt"
_LOG = logging.getLogger(__name__)
_SCRATCH = ("checkpoints", "model")


def archive(store: ObjectStore, job: Job) -> None:
    """Store the event log and the log text of an attempt that has ended; the run is complete without them."""
    request = job.request
    try:
        store.put(keys.attempt_events(request.run_id, request.attempt), job.folder / EVENTS_FILE)
        store.put(keys.attempt_log(request.run_id, request.attempt), job.folder / LOG_FILE)
    except CellsparseError as error:
        _LOG.warning("the attempt's logs could not be stored: %s", error.message)
    for name in _SCRATCH:
        shutil.rmtree(job.folder / name, ignore_errors=True)
