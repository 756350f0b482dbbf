"""What every upload needs: a temporary folder, and limits of its time and of its pauses."""

import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import grpc

from cellsparse_common.errors import Cancelled, DeadlineExceeded
from cellsparse_common.files import disk_errors

M = TypeVar("M")
_AHEAD = 4
"""Messages that are received before they are asked for."""
_LOOK_SECONDS = 1.0


@contextmanager
def upload_folder(spool: Path) -> Iterator[Path]:
    """Give an empty folder that is removed at the end of the `with` block.

    Args:
        spool: The parent folder; created if it is missing.

    Raises:
        StorageError: The folder cannot be created.
    """
    with disk_errors(f"write {spool}"):
        spool.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=spool)
    with folder as name:
        yield Path(name)


@contextmanager
def time_limit(context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
    """Cancel a call that takes longer; a client with an open but silent stream would otherwise block it for ever."""
    limit = threading.Timer(seconds, context.cancel)
    limit.daemon = True
    limit.start()
    try:
        yield
    finally:
        limit.cancel()


def alive(messages: Iterator[M], context: grpc.ServicerContext) -> Iterator[M]:
    """Yield messages as long as somebody waits for the answer; raises Cancelled."""
    for message in messages:
        if not context.is_active():
            raise Cancelled("The caller has gone.")
        yield message


def not_idle(requests: Iterator[M], seconds: float, kept: str = "nothing of it is kept") -> Iterator[M]:
    """Yield the messages of an upload, and end it if it pauses for too long. Time in which it is not read is no pause.

    Args:
        requests: The messages.
        seconds: Longest pause.
        kept: What is left of the upload then, for the message.

    Raises:
        DeadlineExceeded: Nothing came for so long.
    """
    received: queue.Queue[tuple[M | None, Exception | None]] = queue.Queue(_AHEAD)
    left = threading.Event()

    def put(message: M | None, error: Exception | None) -> None:
        while not left.is_set():
            try:
                received.put((message, error), timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return

    def receive() -> None:
        try:
            for message in requests:
                put(message, None)
                if left.is_set():
                    return
        except Exception as error:  # noqa: BLE001 - raised below, where the upload is read
            put(None, error)
        else:
            put(None, StopIteration())

    threading.Thread(target=receive, name="upload", daemon=True).start()
    try:
        while True:
            message, error = received.get(timeout=seconds)
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            assert message is not None
            yield message
    except queue.Empty:
        raise DeadlineExceeded(
            f"The upload sent nothing for {seconds:g} s, the longest pause allowed; {kept}."
        ) from None
    finally:
        left.set()
