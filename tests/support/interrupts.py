"""Processes that a test or benchmark starts end with it, also where it is interrupted just then."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def sigterm_interrupts() -> None:
    """Let SIGTERM raise `KeyboardInterrupt`, as SIGINT does, so that `with` and `finally` end what was started.

    For `main()` of a benchmark. Code under test may catch `KeyboardInterrupt`, so that pytest would not end.
    """
    signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the end of the block, which must be short.

    A process that is started in it is known when `KeyboardInterrupt` is raised, and can be ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal interrupts another thread
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda received, _: came.append(received))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
