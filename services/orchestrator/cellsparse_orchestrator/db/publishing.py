"""Keeps apart who publishes objects and who collects those that nothing refers to.

Whoever publishes relies on objects that are there (`keep_blob` writes no blob twice) before a row or a manifest refers
to them. A collector that looked in between would remove them. So publishers work inside `publishing`, at the same time
as each other, and the collector removes objects inside `keep_out`, while nobody publishes.

One orchestrator leads at a time, so the lock is one of its process: the rows of a former leader's publishers are
refused by the fence (`db.lease`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cellsparse_common.errors import Unavailable

_COLLECT_SECONDS = 60.0
"""Longest wait of a publisher for the collector, which removes a few objects at a time."""


class Publishing:
    """A lock that many publishers share, and that the collector takes for itself. Publishers never wait for long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._publishers = 0
        self._collecting = False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the collector away, from before the first object is relied on until a row refers to it.

        Raises:
            Unavailable: The collector did not finish.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._collecting, _COLLECT_SECONDS):
                raise Unavailable(f"A collection has held up the store for {_COLLECT_SECONDS:g} s; try again.")
            self._publishers += 1
        try:
            yield
        finally:
            with self._changed:
                self._publishers -= 1
                self._changed.notify_all()

    @contextmanager
    def keep_out(self, seconds: float) -> Iterator[bool]:
        """Wait until nobody publishes, and keep publishers away; give whether that was so within some seconds.

        Publishers that come while the collector still waits go first.
        """
        with self._changed:
            alone = self._changed.wait_for(lambda: not self._publishers and not self._collecting, seconds)
            self._collecting = self._collecting or alone
        try:
            yield alone
        finally:
            if alone:
                with self._changed:
                    self._collecting = False
                    self._changed.notify_all()
