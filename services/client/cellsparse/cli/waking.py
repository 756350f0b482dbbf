"""What the terminal says while a call waits for trainers that sleep while nobody needs them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cellsparse.connection import Connection
from cellsparse.errors import CellsparseError
from cellsparse_proto.v1 import orchestrator_pb2

QUIET_SECONDS = 2.0
"""How long a call takes before anything is asked, and how often then."""
_END_SECONDS = 10.0


@contextmanager
def telling_of_sleep(
    connection: Connection, backend: str, say: Callable[[str], None], every: float = QUIET_SECONDS
) -> Iterator[None]:
    """Say once, during the `with` block, that calls wait for a backend's trainers to start.

    Args:
        connection: Another one to the same orchestrator is made when something is asked.
        backend: The trainers.
        say: Takes the sentence.
        every: How often to ask, seconds.
    """
    over = threading.Event()

    def watch() -> None:
        if over.wait(every):
            return
        with suppress(CellsparseError):  # the call itself tells what is wrong
            own = connection.another()
            try:
                while not _told(own, backend, say) and not over.wait(every):
                    pass
            finally:
                own.close()

    thread = threading.Thread(target=watch, name="telling-of-sleep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_END_SECONDS)


def _told(connection: Connection, backend: str, say: Callable[[str], None]) -> bool:
    """Say that the trainers are being started, if they are; return whether anything was said."""
    status: orchestrator_pb2.GetStatusResponse = connection.call("GetStatus", orchestrator_pb2.GetStatusRequest())
    for service in status.services:
        if service.name == backend and service.waking:
            say(f"The {backend} trainers were {service.message}.")
            return True
    return False
