"""Delete Jobs in a separate thread, so that nothing else waits for an API server that does not answer."""

import logging
import threading
from collections.abc import Callable

from cellsparse_common.errors import CellsparseError

_LOG = logging.getLogger(__name__)
_TRIES = 3
_PAUSE_SECONDS = 1.0
_END_SECONDS = 10.0


class Remover(threading.Thread):
    """Deletes Jobs in the order of the requests.

    A Job that cannot be deleted after a few tries is dropped; the launcher's next `keep_only` requests it again.

    Args:
        delete: Deletes a Job by name, if it exists. Raises CellsparseError.
    """

    def __init__(self, delete: Callable[[str], None]) -> None:
        super().__init__(name="remove-jobs", daemon=True)
        self._delete_job = delete
        self._changed = threading.Condition()
        self._names: dict[str, None] = {}
        self._ending = False

    def remove(self, name: str) -> None:
        """Delete a Job soon; return at once. Idempotent."""
        with self._changed:
            self._names[name] = None
            self._changed.notify_all()

    def run(self) -> None:
        """Delete until `stop`, including what was requested before it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._names or self._ending)
                name = next(iter(self._names), "")
            if not name:
                return
            self._try(name)
            with self._changed:
                self._names.pop(name, None)

    def stop(self) -> None:
        """End soon; what cannot be deleted at once is left to the next orchestrator."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self.ident is not None:
            self.join(_END_SECONDS)

    def _try(self, name: str) -> None:
        for number in range(1, _TRIES + 1):
            try:
                self._delete_job(name)
                return
            except CellsparseError as error:
                _LOG.warning("Job %s could not be deleted (try %d of %d): %s", name, number, _TRIES, error.message)
            with self._changed:
                if self._changed.wait_for(lambda: self._ending, _PAUSE_SECONDS):
                    return
