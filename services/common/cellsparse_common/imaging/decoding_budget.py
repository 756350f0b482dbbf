"""How many bytes all calls of a server may have decoded at the same time: each image alone may be allowed.

A server sets the limit when it starts; other processes have none. What an image takes is known from its header, before
it is decoded, and counts until its array is gone. Small images do not count.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import Busy

SMALL_BYTES = 4 * 2**20
"""Images that take less do not count: tiles of pages and pyramids."""
_WAIT_SECONDS = 30.0
_RETRY_SECONDS = 5.0


class DecodingBudget:
    """Bytes for decoded images.

    Args:
        most: Most bytes at the same time; None: any number. One image that takes more gets all of them.
        wait_seconds: How long an image waits until others are gone.
    """

    def __init__(self, most: int | None = None, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._most = most
        self._wait_seconds = wait_seconds
        # Arrays may go at any point of any thread, also within a method of this class.
        self._changed = threading.Condition(threading.RLock())
        self._taken = 0

    @property
    def taken(self) -> int:
        """Bytes that are taken now."""
        with self._changed:
            return self._taken

    def set_limit(self, most: int | None) -> None:
        """Set the most bytes at the same time; None: any number."""
        with self._changed:
            self._most = most

    def take(self, size: int, field: str) -> int:
        """Take bytes, and return how many are to be given back.

        Args:
            size: What the image takes.
            field: Name of the request's field, for messages.

        Raises:
            Busy: Other images took too much for too long.
        """
        with self._changed:
            most = self._most
            if most is None or size < SMALL_BYTES:
                return 0
            counted = min(size, most)
            if not self._changed.wait_for(lambda: self._taken + counted <= most, self._wait_seconds):
                raise Busy(
                    f"The {field} unpacks to {size:,} bytes, and other calls hold {self._taken:,} of the {most:,} that "
                    "all images together may take now (CELLSPARSE_MAX_DECODED_MIB). Try again in a moment.",
                    field,
                    retry_seconds=_RETRY_SECONDS,
                )
            self._taken += counted
            return counted

    def give_back(self, size: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    @contextmanager
    def claim(self) -> Iterator["Claim"]:
        """Give a claim for one image; an error within the `with` block gives all back."""
        claim = Claim(self)
        try:
            yield claim
        except BaseException:
            claim.drop()
            raise


class Claim:
    """What one image takes of a budget."""

    def __init__(self, budget: DecodingBudget) -> None:
        self._budget = budget
        self._size = 0

    def take(self, size: int, field: str) -> None:
        """Take the bytes of an image before it is decoded (see `DecodingBudget.take`)."""
        self.drop()
        self._size = self._budget.take(size, field)

    def keep_with(self, array: npt.NDArray[np.generic]) -> None:
        """Give the bytes back when an array, and all that are parts of it, is gone; at once what it does not take."""
        if self._size:
            owner = array
            while isinstance(owner.base, np.ndarray):
                owner = owner.base
            surplus = max(0, self._size - owner.nbytes)
            self._size -= surplus
            self._budget.give_back(surplus)
            weakref.finalize(owner, self._budget.give_back, self._size)
            self._size = 0

    def drop(self) -> None:
        """Give the bytes back now."""
        if self._size:
            size, self._size = self._size, 0
            self._budget.give_back(size)


BUDGET = DecodingBudget()
"""The budget of this process."""
