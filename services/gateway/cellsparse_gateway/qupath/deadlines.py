"""The time that one request may take, and the end of the server, whichever comes first."""

import threading
import time
from http import HTTPStatus

from cellsparse_gateway.qupath.refusals import Refusal

PATIENCE_SECONDS = 3600.0
"""Longest time of one request: QuPath's extension waits for ever, proxies in between for an hour."""


class Deadline:
    """Counts down from its making.

    Args:
        seconds: Time allowed.
        closing: Set when the server is about to end.
    """

    def __init__(self, seconds: float, closing: threading.Event) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self._closing = closing

    def left(self, at_most: float = PATIENCE_SECONDS) -> float:
        """Return the seconds left, above 0.

        Raises:
            Refusal: None are left, or the server ends.
        """
        if self._closing.is_set():
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server is stopping. A training that has begun goes on: press Inference when the server is back.",
            )
        left = self._end - time.monotonic()
        if left <= 0:
            raise Refusal(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"The training is not over after {self._seconds:.0f} seconds. It goes on: press Inference later.",
            )
        return min(left, at_most)

    def pause(self, seconds: float) -> None:
        """Wait for so long, or until the server ends.

        Raises:
            Refusal: No time is left, or the server ends.
        """
        self._closing.wait(self.left(seconds))
        self.left()

    def take(self, lock: threading.Lock) -> None:
        """Acquire a lock.

        Raises:
            Refusal: No time is left, or the server ends.
        """
        while not lock.acquire(timeout=self.left(0.5)):
            pass
