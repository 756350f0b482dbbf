"""Files that are sent by their hash: a cut connection loses nothing that has come, and nothing is sent twice.

What is made of the files is asked for afterwards (see `UploadService` in upload.proto).
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from cellsparse.connection import Connection
from cellsparse.errors import (
    Aborted,
    Busy,
    Cancelled,
    CellsparseError,
    DeadlineExceeded,
    InvalidArgument,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from cellsparse.sources import parts_of, read_parts
from cellsparse_proto.v1 import upload_pb2

T = TypeVar("T")
SEND_SECONDS = 6 * 3600.0
CHECK_SECONDS = 3600.0
TRIES = 8
"""Tries in a row that bring no byte forward."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
AT_ONCE = 200
"""Files that are asked for, and sent, together."""
PUTS_AT_ONCE = 4
"""Files that go to checked URLs at the same time."""
_BROKEN = (Unavailable, Busy, Aborted, Cancelled, DeadlineExceeded, OutOfRange)
"""Errors after which an upload goes on."""


class EmptyFile(InvalidArgument):
    """A file has no bytes."""


class Stopped(Cancelled):
    """The sender was told to send nothing more."""


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A file to be sent."""

    sha256: str
    size: int
    content: str | Path | bytes
    what: str
    """What it is, for messages."""


def hashed(content: str | Path | bytes, what: str) -> Blob:
    """Return a file with its hash; it is read once.

    Raises:
        InvalidArgument: It cannot be read, or is empty.
    """
    digest, size = hashlib.sha256(), 0
    for part in [content] if isinstance(content, bytes) else read_parts(content):
        digest.update(part)
        size += len(part)
    if not size:
        raise EmptyFile(f"The {what} is empty.", "chunk")
    return Blob(sha256=digest.hexdigest(), size=size, content=content, what=what)


def can_resume(connection: Connection) -> bool:
    """Whether the orchestrator takes files by their hash; those of earlier versions do not."""
    if connection.resumes_uploads is None:
        try:
            connection.call("HasBlobs", upload_pb2.HasBlobsRequest())
            connection.resumes_uploads = True
        except Unimplemented:
            connection.resumes_uploads = False
    return connection.resumes_uploads


def persistent(connection: Connection, work: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
    """Do something again after a break, with growing pauses.

    Args:
        connection: The connection that it uses.
        work: What to do.
        progress: Returns a number that grows as long as there is progress.

    Raises:
        CellsparseError: It cannot be done, or breaks `TRIES` times without progress.
    """
    tries, before = 0, progress()
    while True:
        try:
            return work()
        except Stopped:
            raise
        except _BROKEN:
            if progress() > before:
                tries, before = 0, progress()
            tries += 1
            if tries >= TRIES or connection.closed:
                raise
            time.sleep(min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE))


class Sender:
    """Sends files. Several threads may send different ones.

    Args:
        connection: To the orchestrator.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._use_urls = True
        self._putting = threading.Semaphore(PUTS_AT_ONCE)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Send nothing more: what is under way in other threads ends soon, with `Stopped`."""
        self._stopped.set()

    def send(self, blobs: Sequence[Blob]) -> None:
        """Send what the orchestrator does not have yet of at most `AT_ONCE` files.

        Raises:
            CellsparseError: They cannot be sent; the message names one of them.
        """
        self.confirm(self.put(blobs))

    def put(self, blobs: Sequence[Blob]) -> list[Blob]:
        """Send files as `send` does; return those that only the store knows of, which `confirm` takes.

        Raises:
            CellsparseError: As for `send`.
        """
        return self._persistent(list({blob.sha256: blob for blob in blobs}.values()), checked=True)

    def confirm(self, blobs: Sequence[Blob]) -> None:
        """Let the orchestrator note files that `put` returned; those that it does not find are sent another way.

        Raises:
            CellsparseError: As for `send`.
        """
        there: set[str] = set()
        for begin in range(0, len(blobs), AT_ONCE):
            some = blobs[begin : begin + AT_ONCE]
            there |= persistent(self._connection, partial(self._noted, some))
        if missing := [blob for blob in blobs if blob.sha256 not in there]:
            self._persistent(missing, checked=False)

    def _persistent(self, blobs: Sequence[Blob], *, checked: bool) -> list[Blob]:
        progress = _Progress()
        return persistent(
            self._connection, lambda: self._send(blobs, progress, checked=checked), lambda: progress.there
        )

    def _send(self, blobs: Sequence[Blob], progress: "_Progress", *, checked: bool) -> list[Blob]:
        """Send files, and return those that were sent to checked URLs; without `checked` there are none."""
        self._go_on()
        try:
            states = self._start([upload_pb2.UploadFile(sha256=blob.sha256, size=blob.size) for blob in blobs])
            progress.there = max(progress.there, sum(max(each.offset, each.parts.received) for each in states))
            pairs = [(blob, state) for blob, state in zip(blobs, states, strict=True) if not state.complete]
            gone = self._sent_to_checked_urls(pairs) if checked else []
            sent = {blob.sha256 for blob in gone}
            left = [
                (blob, state.offset)
                for blob, state in pairs
                if not (blob.sha256 in sent or self._sent_to_url(blob, state))
            ]
            if left:
                answer = self._connection.upload("SendUploads", self._messages(left), timeout=SEND_SECONDS)
                if answer.complete < len(left):
                    raise InvalidArgument(f"The {left[answer.complete][0].what} became shorter while it was sent.")
        except (InvalidArgument, ResourceExhausted) as error:
            if isinstance(error, Busy):
                raise
            raise _named(error, blobs) from None
        return gone

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Stopped("The upload was stopped.")

    def _put(
        self, url: str, blob: Blob, size: int, begin: int = 0, headers: Mapping[str, str] = MappingProxyType({})
    ) -> bool:
        """Send a part of a file to a URL, and return whether the store has taken it."""
        return self._connection.stores.put(url, blob.content, size, begin, headers, self._go_on)

    def _start(self, files: Sequence[upload_pb2.UploadFile]) -> Sequence[upload_pb2.UploadState]:
        states: Sequence[upload_pb2.UploadState] = self._connection.call(
            "StartUploads", upload_pb2.StartUploadsRequest(files=files)
        ).uploads
        return states

    def _sent_in_parts(self, blob: Blob, parts: upload_pb2.UploadParts) -> bool:
        """Send the parts of a file that are missing; return whether the store takes them.

        Raises:
            Unavailable: It took some, and then no more.
        """
        reached = bool(parts.received)
        while parts.missing:
            for part in parts.missing:
                begin = (part.number - 1) * parts.part_bytes
                size = min(parts.part_bytes, blob.size - begin)
                if not self._put(part.url, blob, size, begin):
                    if reached:
                        raise Unavailable(f"The store took a part of the {blob.what}, and then no more.")
                    return False
                reached = True
            (state,) = self._start([upload_pb2.UploadFile(sha256=blob.sha256, size=blob.size)])
            if state.parts.missing and state.parts.received <= parts.received:
                raise Unavailable(f"The store took parts of the {blob.what}, but does not have them.")
            parts = state.parts
        return True

    def _sent_to_checked_urls(self, pairs: Sequence[tuple[Blob, upload_pb2.UploadState]]) -> list[Blob]:
        """Send files whose hash the store checks straight to it, until it takes one not; return those it took."""

        def put(file: tuple[Blob, upload_pb2.CheckedUrl]) -> bool:
            blob, target = file
            with self._putting:
                if not self._use_urls:
                    return False
                took = self._put(target.url, blob, blob.size, headers=dict(target.headers))
                self._use_urls = self._use_urls and took
                return took

        files = [(blob, state.checked) for blob, state in pairs if state.HasField("checked")]
        if len(files) == 1:
            return [blob for blob, _ in files if put(files[0])]
        threads = ThreadPoolExecutor(PUTS_AT_ONCE, "put")
        try:
            taken = list(threads.map(put, files))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        return [blob for (blob, _), took in zip(files, taken, strict=True) if took]

    def _noted(self, gone: Sequence[Blob]) -> set[str]:
        """Return the hashes of those files that have come to their checked URLs."""
        self._go_on()
        request = upload_pb2.FinishUploadsRequest(sha256=[blob.sha256 for blob in gone])
        states = self._connection.call("FinishUploads", request, timeout=CHECK_SECONDS).uploads
        return {state.sha256 for state in states if state.complete}

    def _sent_to_url(self, blob: Blob, state: upload_pb2.UploadState) -> bool:
        """Send a file straight to the store, if it has a URL that works; return whether it is there."""
        if not ((state.url or state.HasField("parts")) and self._use_urls):
            return False
        if state.url:
            self._use_urls = self._put(state.url, blob, blob.size)
        else:
            self._use_urls = self._sent_in_parts(blob, state.parts)
        if self._use_urls:
            request = upload_pb2.FinishUploadRequest(sha256=blob.sha256)
            self._connection.call("FinishUpload", request, timeout=CHECK_SECONDS)
        return self._use_urls

    def _messages(self, blobs: Sequence[tuple[Blob, int]]) -> Iterator[upload_pb2.SendUploadsRequest]:
        make = upload_pb2.SendUploadsRequest
        for blob, offset in blobs:
            yield make(file=upload_pb2.UploadBegin(sha256=blob.sha256, offset=offset))
            content = blob.content
            for chunk in parts_of(content, offset) if isinstance(content, bytes) else read_parts(content, offset):
                self._go_on()
                yield make(chunk=chunk)


@dataclass
class _Progress:
    """How far some files have come."""

    there: int = 0
    """Bytes."""


def _named(error: CellsparseError, blobs: Sequence[Blob]) -> CellsparseError:
    """Return an error that calls a file by what it is instead of by its hash."""
    for blob in blobs:
        if f"ile {blob.sha256}" in error.message:
            message = error.message.replace(f"File {blob.sha256}", f"The {blob.what}")
            return type(error)(message.replace(f"file {blob.sha256}", f"the {blob.what}"), blob.what)
    return error
