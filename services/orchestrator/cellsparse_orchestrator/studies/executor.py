"""Slow actions of a loop that must not wait: each runs once at a time and is retried a limited number of times."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cellsparse_common.errors import (
    Cancelled,
    CellsparseError,
    Damaged,
    DeadlineExceeded,
    Internal,
    StorageError,
    Unavailable,
)
from cellsparse_orchestrator.run_states import backoff

_LOG = logging.getLogger(__name__)
MOST_TRIES = 10
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
Key = tuple[str, int]
"""A study's id and the number of one of its members (0 for the study itself)."""
_AGAIN = (Unavailable, DeadlineExceeded, Cancelled)


@dataclass
class _Tries:
    count: int = 0
    outages: int = 0
    """Tries that failed because the store was away; they do not count against `MOST_TRIES`."""
    not_before: float = 0.0
    going: bool = False
    error: CellsparseError | None = None
    """Why the action was given up; None while it was not."""


class RetryingExecutor:
    """A thread pool for one kind of action, with retries.

    Args:
        name: Name of the threads.
        workers: How many actions run at once.
        ended: Called when an action has ended.
        first_pause: Seconds before the second try; doubled for every further one.
    """

    def __init__(
        self, name: str, workers: int, ended: Callable[[], None], first_pause: float = FIRST_PAUSE_SECONDS
    ) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._ended = ended
        self._first_pause = first_pause
        self._lock = threading.Lock()
        self._tries: dict[Key, _Tries] = {}

    def submit(self, key: Key, action: Callable[[], None]) -> CellsparseError | None:
        """Run an action, unless it is running or waits for its next try.

        Args:
            key: What identifies the action.
            action: What to do; must be idempotent.

        Returns:
            None, or once the error for which the action was given up: a permanent one, or that of try `MOST_TRIES`.
        """
        with self._lock:
            tries = self._tries.setdefault(key, _Tries())
            if tries.error is not None:
                return self._tries.pop(key).error
            if tries.going or time.monotonic() < tries.not_before:
                return None
            tries.going = True
            tries.count += 1
        self._pool.submit(self._run, key, tries, action)
        return None

    def begun(self, study_id: str) -> frozenset[int]:
        """Return the members of a study whose action runs, waits for its next try, or was given up unsaid."""
        with self._lock:
            return frozenset(number for study, number in self._tries if study == study_id)

    def forget(self, study_id: str) -> None:
        """Drop what is known of a study's actions; those that run go on."""
        with self._lock:
            for key in [key for key, tries in self._tries.items() if key[0] == study_id and not tries.going]:
                del self._tries[key]

    def stop(self) -> None:
        """Start no more actions; those that run must be ended by other means."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, key: Key, tries: _Tries, action: Callable[[], None]) -> None:
        error: CellsparseError | None = None
        try:
            action()
        except CellsparseError as found:
            error = found
        except Exception:  # noqa: BLE001 - logged whole; one action must not stop the others
            _LOG.exception("%s failed", key)
            error = Internal("This is a fault of ours; the orchestrator's log has the details.")
        with self._lock:
            tries.going = False
            if error is None:
                self._tries.pop(key, None)
            elif isinstance(error, _AGAIN) and (_store_is_away(error) or tries.count - tries.outages < MOST_TRIES):
                tries.outages += _store_is_away(error)
                tries.not_before = time.monotonic() + backoff(tries.count, self._first_pause, LONGEST_PAUSE_SECONDS)
                _LOG.warning("%s is tried again after try %d: %s", key, tries.count, error.message)
            else:
                tries.error = error
        self._ended()


def _store_is_away(error: CellsparseError) -> bool:
    return isinstance(error, StorageError) and not isinstance(error, Damaged)
