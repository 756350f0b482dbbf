"""A stream that survives a restart of the orchestrator."""

import math
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cellsparse.connection import Connection
from cellsparse.errors import Busy, CellsparseError, DeadlineExceeded, Unavailable

PATIENCE_SECONDS = 120.0
"""How long a watcher waits for an orchestrator that has gone: the pod that follows may have to start on a busy node."""
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
    """Yield the answers of a stream until its subject has ended, and reconnect with growing pauses when it breaks.

    Args:
        connection: The connection to use.
        stream: Makes the call, and continues after the last answer that was yielded.
        ended: Returns within `ASK_SECONDS` whether the subject of the stream has ended.
        patience: Seconds without an answer before giving up.
        on_lost: Called with the error and the seconds left, each time the orchestrator does not answer.
        on_back: Called when it answers again.

    Raises:
        Unavailable: It did not answer for `patience` seconds.
        NotFound: The subject does not exist.
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
            # A server that shuts down ends its streams, too, so the end of a stream alone says nothing.
            if _ask(connection, ended):
                return
            raise Unavailable(f"The orchestrator at {connection.address} ended the stream before it was complete.")
        except DeadlineExceeded:
            continue  # the stream was long, not broken
        except (Unavailable, Busy) as error:
            now = time.monotonic()
            if now - began > STEADY_SECONDS:  # a new outage, not the previous one continued
                give_up, pause = 0.0, FIRST_PAUSE_SECONDS
            give_up = give_up or now + patience
            if now + pause > give_up:
                raise
            on_lost(error, give_up - now)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            connection.refresh()


def _ask(connection: Connection, ended: Callable[[], bool]) -> bool:
    """Return whether the subject has ended. A server that does not respond in time counts as unavailable."""
    try:
        return ended()
    except DeadlineExceeded as error:
        raise Unavailable(f"The orchestrator at {connection.address} does not answer.") from error
