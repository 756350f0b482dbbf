"""Work that blocks, for a thread that must look up now and then."""

import atexit
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

PAUSE_SECONDS = 0.25
END_SECONDS = 5.0

T = TypeVar("T")

_running: dict[threading.Thread, Callable[[], None]] = {}
"""Threads that work, and what makes each end."""


def polled(work: Callable[[], Iterator[T]], leave: Callable[[], None]) -> Iterator[T | None]:
    """Do the work in a thread of its own; yield what it yields, and None four times a second.

    A worker of napari can end only where it yields, and napari waits for all its workers before it closes.

    Args:
        work: Makes the iterator. Its exceptions are raised here.
        leave: Makes the work end soon; called when the caller wants no more.
    """
    found: queue.SimpleQueue[tuple[T | None, BaseException | None, bool]] = queue.SimpleQueue()

    def run() -> None:
        try:
            for one in work():
                found.put((one, None, False))
        except BaseException as error:  # noqa: BLE001 - raised by the caller
            found.put((None, error, True))
        else:
            found.put((None, None, True))

    thread = threading.Thread(target=run, name="cellsparse-napari", daemon=True)
    _running[thread] = leave
    thread.start()
    over = False
    try:
        while not over:
            try:
                one, error, over = found.get(timeout=PAUSE_SECONDS)
            except queue.Empty:
                yield None
                continue
            if error is not None:
                raise error
            if not over:
                yield one
    finally:
        if not over:
            leave()
        thread.join(END_SECONDS)
        _running.pop(thread, None)


@atexit.register
def _end_all() -> None:
    """End all work before the interpreter ends, as gRPC's threads must not outlive it."""
    for thread, leave in list(_running.items()):
        leave()
        thread.join(END_SECONDS)
