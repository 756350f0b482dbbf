"""One at a time, in the order of asking; what is urgent goes first."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from cellsparse_common.errors import Unavailable


class FairLock:
    """A lock that is handed to whoever waits for the longest time, but at first to who is in a hurry."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    @contextmanager
    def hold(self, seconds: float, *, urgent: bool = False) -> Iterator[None]:
        """Hold the lock within the `with` block.

        Args:
            seconds: Longest wait.
            urgent: Before all others that wait; for one thread only, or those others might wait for ever.

        Raises:
            Unavailable: It was not our turn within some seconds.
        """
        if not self._acquire(seconds, urgent):
            raise Unavailable(f"The database was busy for {seconds:g} s; try again.")
        try:
            yield
        finally:
            self._release()

    def _acquire(self, seconds: float, urgent: bool) -> bool:
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            if urgent:
                self._waiting.appendleft(mine)
            else:
                self._waiting.append(mine)
        if mine.acquire(timeout=seconds):
            return True
        with self._lock:
            if mine not in self._waiting:
                return True  # it was handed over just now
            self._waiting.remove(mine)
            return False

    def _release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
