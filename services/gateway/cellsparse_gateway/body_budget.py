"""How many bytes the bodies of all requests together may take, in memory and on disk: each alone may be allowed.

Small bodies do not count: they are the page's, and there are at most as many as requests at the same time.
"""

import threading

from cellsparse_common.errors import Busy

SMALL_BYTES = 2**20
"""Bodies that are smaller do not count."""
_RETRY_SECONDS = 5.0


class BodyBudget:
    """Bytes for bodies.

    Args:
        most: Most bytes at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken = 0

    @property
    def taken(self) -> int:
        """Bytes that are taken now."""
        with self._lock:
            return self._taken

    def change(self, difference: int) -> None:
        """Take bytes, or give them back if the number is negative.

        Raises:
            Busy: There are not as many left; none is taken.
        """
        with self._lock:
            if difference > 0 and self._taken + difference > self._most:
                raise Busy(
                    f"Bodies of other requests hold {self._taken:,} of the {self._most:,} bytes that all together may "
                    "take now (CELLSPARSE_GATEWAY_MAX_BODIES_MIB). Try again in a moment.",
                    retry_seconds=_RETRY_SECONDS,
                )
            self._taken += difference


class HeldBody:
    """What one request's body takes of a budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._size = 0
        self._counted = 0

    def grow(self, size: int) -> None:
        """Note that so many bytes more are kept.

        Raises:
            Busy: There is no room for them.
        """
        self._size += size
        if self._size > SMALL_BYTES:
            self._budget.change(self._size - self._counted)
            self._counted = self._size

    def drop(self) -> None:
        """Give all back."""
        self._budget.change(-self._counted)
        self._size = self._counted = 0
