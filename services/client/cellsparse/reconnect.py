"""A stream that survives a restart of the orchestrator."""

import math
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cellsparse.connection import Connection
from cellsparse.errors import CellsparseError, DeadlineExceeded, Unavailable

PATIENCE_SECONDS = 30.0
STREAM_SECONDS = 3600.0
ASK_SECONDS = 5.0
STEADY_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 4.0

OnLost = Callable[[CellsparseError, float], None]
T = TypeVar("T")


def reconnecting(
    connection: Connection,
    stream: Callable[[], Iterator[T]],
    ended: Callable[[], bool],
    *,
    patience: float,
    on_lost: OnLost,
    on_back: Callable[[], None],
) -> Iterator[T]:
    """Yield the answers of a stream until what it is about has ended, with growing pauses between broken calls.

    Args:
        connection: Where.
        stream: Makes the call, from after the last answer that was yielded.
        ended: Asks, within `ASK_SECONDS`, whether what the stream is about has ended.
        patience: Seconds without an answer after which to give up.
        on_lost: Called with the error and the seconds left, each time the orchestrator does not answer.
        on_back: Called when it answers again.

    Raises:
        Unavailable: It did not answer for `patience` seconds.
        NotFound: There is nothing to stream.
    """
    give_up, pause = 0.0, FIRST_PAUSE_SECONDS
    while True:
        began = math.inf
        try:
            if give_up:
                _ask(connection, ended)
                on_back()
            began = time.monotonic()
            for answer in stream():
                give_up, pause = 0.0, FIRST_PAUSE_SECONDS
                yield answer
            # A server that shuts down ends its streams too: only what they are about knows whether it has ended.
            if _ask(connection, ended):
                return
            raise Unavailable(f"The orchestrator at {connection.address} ended the stream before it was complete.")
        except DeadlineExceeded:
            continue  # the stream was long, not broken
        except Unavailable as error:
            now = time.monotonic()
            if now - began > STEADY_SECONDS:  # an outage of its own, not more of the last one
                give_up, pause = 0.0, FIRST_PAUSE_SECONDS
            give_up = give_up or now + patience
            if now + pause > give_up:
                raise
            on_lost(error, give_up - now)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            connection.refresh()


def _ask(connection: Connection, ended: Callable[[], bool]) -> bool:
    """Ask; a server that is there but silent counts as unavailable."""
    try:
        return ended()
    except DeadlineExceeded as error:
        raise Unavailable(f"The orchestrator at {connection.address} does not answer.") from error
