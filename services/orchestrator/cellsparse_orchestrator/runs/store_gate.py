"""Whether the object store answers, so that no attempt is begun while it does not.

Nobody asks while nothing is about to begin. While the store is away it is asked again and again, so that the queue goes
on by itself.
"""

import logging
import threading
import time
from collections.abc import Callable

from cellsparse_common.errors import CellsparseError
from cellsparse_common.storage import ObjectStore, keys

_LOG = logging.getLogger(__name__)
_FRESH_SECONDS = 5.0
"""How long an answer of the store is taken to hold."""
_END_SECONDS = 1.0


class StoreGate(threading.Thread):
    """Asks the store, in a thread of its own: a server that is gone may not even refuse.

    Args:
        store: The store.
        changed: Called when an answer is there.
        seconds: Pause between two questions while the store is away.
    """

    def __init__(self, store: ObjectStore, changed: Callable[[], None], seconds: float) -> None:
        super().__init__(name="store-gate", daemon=True)
        self._store = store
        self._changed = changed
        self._seconds = seconds
        self._answered: float | None = None
        self._problem = ""
        self._wanted = threading.Event()
        self._end = threading.Event()

    @property
    def problem(self) -> str:
        """Why the store is away, as far as anybody has asked; empty: it is not."""
        return self._problem

    @property
    def waiting(self) -> str:
        """What waits for the store, and why, for people; empty: nothing."""
        return f"waiting for the store: {self._problem}" if self._problem else ""

    @property
    def asking(self) -> bool:
        """Whether an answer is still to come; `changed` is called then."""
        return self._wanted.is_set() or bool(self._problem)

    def ready(self) -> bool:
        """Whether the store answered a moment ago; if that is not known, it is asked now. Returns at once."""
        if not self._problem and self._answered is not None and time.monotonic() - self._answered < _FRESH_SECONDS:
            return True
        self._wanted.set()
        return False

    def suspect(self) -> None:
        """Take an error of the store as a reason to ask before the next attempt begins."""
        self._answered = None

    def run(self) -> None:
        """Answer questions until `stop`."""
        while not self._end.is_set():
            self._wanted.wait()
            if self._end.is_set():
                return
            problem = find_problem(self._store)
            if problem and not self._problem:
                _LOG.warning("no attempt is begun, waiting for the store: %s", problem)
            if self._problem and not problem:
                _LOG.warning("the store answers again")
            self._answered = None if problem else time.monotonic()
            # The first sentence of an outage stands to its end: every other one would be an event of every run.
            self._problem = (self._problem or problem) if problem else ""
            if not problem:
                self._wanted.clear()
            self._changed()
            if problem:
                self._end.wait(self._seconds)

    def stop(self) -> None:
        """End the thread soon."""
        self._end.set()
        self._wanted.set()
        if self.is_alive():
            self.join(_END_SECONDS)


def find_problem(store: ObjectStore) -> str:
    """Write, read and delete a small object; return why that is not possible, or "" if it is."""
    key = keys.store_probe()
    try:
        store.check()
        store.put(key, b"")
        store.get(key)
        store.delete(key)
    except CellsparseError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - logged whole, and told: a queue that waits without a word would be worse
        _LOG.exception("the store cannot be asked")
        return f"{type(error).__name__}: {error}."
    return ""
