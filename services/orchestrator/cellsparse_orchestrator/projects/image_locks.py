"""One writer at a time for each annotation. This process is the only one: it owns the database."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cellsparse_orchestrator.db.fair_lock import FairLock

_SECONDS = 60.0


class ImageLocks:
    """Fair locks by image."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, tuple[FairLock, int]] = {}

    @contextmanager
    def hold(self, image_id: str) -> Iterator[None]:
        """Hold the lock of an image within the `with` block; raises Unavailable after a minute."""
        with self._lock:
            lock, users = self._locks.get(image_id, (FairLock(), 0))
            self._locks[image_id] = lock, users + 1
        try:
            with lock.hold(_SECONDS):
                yield
        finally:
            with self._lock:
                users = self._locks[image_id][1] - 1
                if users:
                    self._locks[image_id] = lock, users
                else:
                    del self._locks[image_id]
