"""Files that are sent some at a time, while the next ones are read and hashed."""

import threading
from collections import deque
from collections.abc import Callable

from cellsparse.uploads import AT_ONCE, Blob, Sender

_BATCH_BYTES = 2**24
"""Bytes of files that are sent together."""
_UNDER_WAY = 2
"""Batches that are sent at a time: one is begun or confirmed by the orchestrator while the other one is sent. These and
the one that is being filled may be held in memory."""
_LEAVE_SECONDS = 5.0


class UploadQueue:
    """Sends files while more are added. One that was added before is not sent again.

    Use it in a `with` block. What is left when the block ends well is sent then.

    Args:
        sender: Sends them.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._blobs: list[Blob] = []
        self._size = 0
        self._added: set[str] = set()
        self._under_way: deque[_Task] = deque()

    def __enter__(self) -> "UploadQueue":
        """Begin."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Send what is left; after an error wait a moment at most for what is under way."""
        try:
            if kind is None:
                self._finish()
        finally:
            for task in self._under_way:
                task.leave()

    def add(self, blob: Blob) -> None:
        """Take a file.

        Raises:
            CellsparseError: Files that were added before cannot be sent.
        """
        if blob.sha256 in self._added:
            return
        self._added.add(blob.sha256)
        self._blobs.append(blob)
        self._size += blob.size
        if len(self._blobs) >= AT_ONCE or self._size >= _BATCH_BYTES:
            self._begin()

    def _begin(self) -> None:
        """Send what waits as soon as there is a turn for it."""
        while len(self._under_way) >= _UNDER_WAY:
            self._under_way.popleft().result()
        blobs, self._blobs, self._size = self._blobs, [], 0
        self._under_way.append(_Task(lambda: self._sender.send(blobs)))

    def _finish(self) -> None:
        if self._blobs and self._under_way:
            self._begin()
        elif self._blobs:  # one batch is all
            self._sender.send(self._blobs)
        while self._under_way:
            self._under_way.popleft().result()


class _Task:
    """Work in a thread of its own, which a process that ends does not wait for."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where the work is waited for
            self._error = error

    def result(self) -> None:
        """Wait for the end of the work, and raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Wait for a moment; the work ends with its connection."""
        self._thread.join(_LEAVE_SECONDS)
