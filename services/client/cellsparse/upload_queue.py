"""Files that are sent some at a time, while the next ones are read and hashed."""

import threading
from collections import deque
from collections.abc import Callable

from cellsparse.uploads import AT_ONCE, Blob, Sender

_BATCH_BYTES = 2**24
"""Bytes of files from which on they are asked for together."""
_GROWTH = 3
"""The first batch is one file, and each may have so many times the files of the one before: the store has work at once,
and many files take few calls."""
_UNDER_WAY, _UNDER_WAY_BYTES = 4, 2 * _BATCH_BYTES
"""Batches that are sent at a time. A third one waits until they have at most so many bytes together. These, and the one
that is being filled, may be held in memory."""
_NOTED_FILES, _NOTED_BYTES = 32, 2**26
"""Files that only the store knows of are confirmed when there are so many, or so many bytes of them."""
_LEAVE_SECONDS = 5.0


class UploadQueue:
    """Sends files while more are added. One that was added before is not sent again.

    Use it in a `with` block. What is left when the block ends well is sent then. After an error nothing more is sent.

    Args:
        sender: Sends them; it is stopped after an error.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._blobs: list[Blob] = []
        self._turn = 1
        self._added: set[str] = set()
        self._under_way: deque[_Task] = deque()
        self._lock = threading.Lock()
        self._gone: list[Blob] = []
        """Files that only the store knows of."""

    def __enter__(self) -> "UploadQueue":
        """Begin."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Send what is left; after an error stop what is under way, and wait a moment at most for its end."""
        try:
            if kind is None:
                self._finish()
        finally:
            if self._under_way:
                self._sender.stop()
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
        if len(self._blobs) >= self._turn or _size(self._blobs) >= _BATCH_BYTES:
            self._begin()

    def _begin(self) -> None:
        """Send what waits as soon as there is a turn for it."""
        blobs, self._blobs = self._blobs, []
        self._turn = min(_GROWTH * self._turn, AT_ONCE)
        while not self._has_room(_size(blobs)):
            self._end_first()
        self._under_way.append(_Task(lambda: self._send(blobs), _size(blobs)))

    def _has_room(self, size: int) -> bool:
        """Whether a batch of this size may be sent now."""
        for task in [each for each in self._under_way if each.ended]:
            self._under_way.remove(task)
            task.result()
        many = len(self._under_way)
        return many < _UNDER_WAY and (many < 2 or size + sum(each.size for each in self._under_way) <= _UNDER_WAY_BYTES)

    def _end_first(self) -> None:
        self._under_way[0].wait()
        self._under_way.popleft().result()

    def _send(self, blobs: list[Blob]) -> None:
        gone = self._sender.put(blobs)
        with self._lock:
            self._gone += gone
            if len(self._gone) < _NOTED_FILES and _size(self._gone) < _NOTED_BYTES:
                return
            gone, self._gone = self._gone, []
        self._sender.confirm(gone)

    def _finish(self) -> None:
        if self._blobs:
            self._begin()
        while self._under_way:
            self._end_first()
        if self._gone:
            self._sender.confirm(self._gone)


def _size(blobs: list[Blob]) -> int:
    return sum(blob.size for blob in blobs)


class _Task:
    """Work in a thread of its own, which a process that ends does not wait for.

    Args:
        work: What to do.
        size: Bytes of the files that it is about.
    """

    def __init__(self, work: Callable[[], None], size: int) -> None:
        self.size = size
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the work has ended."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where the work is waited for
            self._error = error

    def wait(self) -> None:
        """Wait for the end of the work."""
        self._thread.join()

    def result(self) -> None:
        """Wait for the end of the work, and raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Wait for a moment; the work ends with its connection."""
        self._thread.join(_LEAVE_SECONDS)
