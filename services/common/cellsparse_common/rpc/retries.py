"""Repeat calls that a busy or starting server refuses, when it says that they may be repeated."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from cellsparse_common.errors import RetryLater

T = TypeVar("T")
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.05, 60.0
"""Bounds of a pause, whatever a server says."""
_SPREAD = 0.25
"""Pauses are longer by up to this share, so that callers that were refused together do not come back together."""


def repeated(call: Callable[[float], T], seconds: float, sleep: Callable[[float], object] = time.sleep) -> T:
    """Make a call, and repeat it after the pause that a busy or starting server asks for.

    Args:
        call: Makes the call, given the seconds that are left for it.
        seconds: Longest time of all tries and pauses.
        sleep: Waits for some seconds.

    Raises:
        RetryLater: The server was busy or being started, and would be for longer than the time that is left.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return call(end - time.monotonic())
        except RetryLater as error:
            pause = min(max(error.retry_seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)
            pause *= 1 + _SPREAD * random.random()
            if time.monotonic() + pause >= end:
                raise
            sleep(pause)
