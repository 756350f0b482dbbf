"""Work that takes time, beside a loop that must not wait: each piece once at a time, tried again within a bound."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cellsparse_common.errors import (
    Cancelled,
    CellsparseError,
    DeadlineExceeded,
    Internal,
    Unavailable,
)
from cellsparse_orchestrator.run_states import pause_before

_LOG = logging.getLogger(__name__)
MOST_TRIES = 10
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
Key = tuple[str, int]
"""A study's id, and the number of one of its members (0: the study)."""
_AGAIN = (Unavailable, DeadlineExceeded, Cancelled)


@dataclass
class _Tries:
    count: int = 0
    not_before: float = 0.0
    going: bool = False
    error: CellsparseError | None = None
    """Why it was given up."""


class RetryingExecutor:
    """Threads for one kind of work.

    Args:
        name: Of the threads.
        workers: How many pieces of work go on at once.
        ended: Called when one has ended.
        first_pause: Seconds before the second try; doubles with every further one.
    """

    def __init__(
        self, name: str, workers: int, ended: Callable[[], None], first_pause: float = FIRST_PAUSE_SECONDS
    ) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._ended = ended
        self._first_pause = first_pause
        self._lock = threading.Lock()
        self._tries: dict[Key, _Tries] = {}

    def begin(self, key: Key, work: Callable[[], None]) -> CellsparseError | None:
        """Have `work` done, unless it is being done, or failed a moment ago.

        Args:
            key: What it is.
            work: What to do; it must do no harm if it is done twice.

        Returns:
            None, or once why it was given up: it failed for good, or `MOST_TRIES` times.
        """
        with self._lock:
            tries = self._tries.setdefault(key, _Tries())
            if tries.error is not None:
                return self._tries.pop(key).error
            if tries.going or time.monotonic() < tries.not_before:
                return None
            tries.going = True
            tries.count += 1
        self._pool.submit(self._do, key, tries, work)
        return None

    def forget(self, owner: str) -> None:
        """Drop what is known of the work whose key begins with `owner`; what goes on is not touched."""
        with self._lock:
            for key in [key for key, tries in self._tries.items() if key[0] == owner and not tries.going]:
                del self._tries[key]

    def stop(self) -> None:
        """Begin nothing more; what goes on must be told by other means."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _do(self, key: Key, tries: _Tries, work: Callable[[], None]) -> None:
        error: CellsparseError | None = None
        try:
            work()
        except CellsparseError as found:
            error = found
        except Exception:  # noqa: BLE001 - logged whole; one piece of work must not end the care for others
            _LOG.exception("%s failed", key)
            error = Internal("This is a fault of ours; the orchestrator's log has the details.")
        with self._lock:
            tries.going = False
            if error is None:
                self._tries.pop(key, None)
            elif isinstance(error, _AGAIN) and tries.count < MOST_TRIES:
                tries.not_before = time.monotonic() + pause_before(
                    tries.count, self._first_pause, LONGEST_PAUSE_SECONDS
                )
                _LOG.warning("%s is tried again after try %d: %s", key, tries.count, error.message)
            else:
                tries.error = error
        self._ended()
