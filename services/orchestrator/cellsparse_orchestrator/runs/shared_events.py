"""Events of runs that many watch: read once for all who have seen the same."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from cellsparse_orchestrator.caller import only_project
from cellsparse_proto.v1 import orchestrator_pb2

Events = tuple[list[orchestrator_pb2.RunEvent], bool]
_Key = tuple[str, int, int, str | None]
FRESH_SECONDS = 1.0
"""How old an answer may be. What changes a run also notifies, so that its watchers ask for another version."""
_WAIT_SECONDS = 10.0
_MOST = 256


class SharedEvents:
    """Reads events (see `Runs.events`). Safe to use from many threads.

    Args:
        read: Reads the events of a run after a sequence number, and whether no more will follow.
    """

    def __init__(self, read: Callable[[str, int], Events]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._known: OrderedDict[_Key, tuple[float, Future[Events]]] = OrderedDict()

    def __call__(self, run_id: str, after: int, version: int) -> Events:
        """Return a run's next events, and whether no more will follow.

        Args:
            run_id: The run.
            after: Sequence number of the last event that is known.
            version: That of the run's topic, read before (see `Notifier.version`).

        Raises:
            NotFound: There is no such run for this caller.
        """
        key = (run_id, after, version, only_project())
        now = time.monotonic()
        with self._lock:
            read_at, found = self._known.get(key, (0.0, None))
            mine = found is None or now - read_at > FRESH_SECONDS
            if mine:
                found = Future()
                self._known[key] = (now, found)
                self._known.move_to_end(key)
                while len(self._known) > _MOST:
                    self._known.popitem(last=False)
        assert found is not None
        if mine:
            try:
                found.set_result(self._read(run_id, after))
            except BaseException as error:
                with self._lock:
                    self._known.pop(key, None)
                found.set_exception(error)
                raise
        try:
            return found.result(_WAIT_SECONDS)
        except TimeoutError:
            return self._read(run_id, after)
