"""An object store that outlasts outages: what fails because the store is away is tried again until it answers.

A training goes on meanwhile as long as it needs nothing from the store. Its checkpoints wait in the attempt's folder,
in the thread that uploads them.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cellsparse_common.errors import Damaged, InvalidArgument, NotFound, StorageError
from cellsparse_common.storage import ObjectStore

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_LOOK_SECONDS = 0.1
"""How often a waiting thread looks whether it should give up."""
R = TypeVar("R")


def _never() -> bool:
    return False


class Outage:
    """What the threads of a process know together about the store: whether it is away, and since when.

    Args:
        say: Takes a sentence when an outage begins and when it ends.
        stopped: Whether this process is to end. Then an error of the store is raised, and not waited for.
        longest: Seconds after which an error of the store is raised all the same.
    """

    def __init__(
        self, say: Callable[[str], None] = _LOG.warning, stopped: Callable[[], bool] = _never, longest: float = 86_400.0
    ) -> None:
        self._say = say
        self._stopped = stopped
        self._longest = longest
        self._lock = threading.Lock()
        self._since: float | None = None

    @property
    def away(self) -> bool:
        """Whether the store did not answer when it was last asked."""
        return self._since is not None

    def outlast(self, action: Callable[[], R]) -> R:
        """Return what an action returns, tried again until the store answers.

        Raises:
            StorageError: An object is damaged, this process is to end, or the outage lasts too long.
        """
        pause, began = _FIRST_PAUSE, time.monotonic()
        while True:
            last = self._stopped()
            try:
                result = action()
            except (NotFound, InvalidArgument, Damaged):
                self._answered()
                raise
            except StorageError as error:
                if last or time.monotonic() - began > self._longest:
                    raise
                self._failed(error)
            else:
                self._answered()
                return result
            self._wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stopped():
            time.sleep(_LOOK_SECONDS)

    def _failed(self, error: StorageError) -> None:
        with self._lock:
            if self._since is not None:
                return
            self._since = time.monotonic()
        self._say(
            f"waiting for the store: {error.message} The training goes on as long as it can; "
            "its checkpoints are kept here until the store answers."
        )

    def _answered(self) -> None:
        with self._lock:
            if self._since is None:
                return
            seconds, self._since = time.monotonic() - self._since, None
        self._say(f"The store answers again after {seconds:.0f} s.")


class PatientStore:
    """An `ObjectStore` whose methods wait for the end of an outage, except `check`, `read` and `list`.

    Args:
        store: The store.
        outage: Decides how long to wait.
    """

    def __init__(self, store: ObjectStore, outage: Outage) -> None:
        self._store = store
        self._outage = outage

    @property
    def url(self) -> str:
        """See `ObjectStore.url`."""
        return self._store.url

    def check(self) -> None:
        """See `ObjectStore.check`."""
        self._store.check()

    def expect(self) -> None:
        """See `ObjectStore.expect`."""
        self._store.expect()

    def put(self, key: str, data: bytes | Path) -> None:
        """See `ObjectStore.put`."""
        self._outage.outlast(lambda: self._store.put(key, data))

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        return self._outage.outlast(lambda: self._store.get(key))

    def fetch(self, key: str, target: Path) -> None:
        """See `ObjectStore.fetch`."""
        self._outage.outlast(lambda: self._store.fetch(key, target))

    def read(self, key: str) -> Iterator[bytes]:
        """See `ObjectStore.read`."""
        return self._store.read(key)

    def exists(self, key: str) -> bool:
        """See `ObjectStore.exists`."""
        return self._outage.outlast(lambda: self._store.exists(key))

    def size(self, key: str) -> int:
        """See `ObjectStore.size`."""
        return self._outage.outlast(lambda: self._store.size(key))

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self._outage.outlast(lambda: self._store.delete(key))
