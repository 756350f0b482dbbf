"""Uploads that resume: files come in parts to this machine's disk, or straight to the store, and become blobs.

A row stands for each of them from its beginning (`UploadTable`). It keeps the collector away from the blob until
something is made of it, or nobody has asked for it in a long time.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from cellsparse_common.errors import (
    CellsparseError,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    StorageError,
)
from cellsparse_common.storage import DirectUploads, ObjectStore, keys
from cellsparse_common.storage.blobs import keep_blob
from cellsparse_orchestrator.caller import new_owner
from cellsparse_orchestrator.catalogue.partial_files import PartialFile, PartialFiles
from cellsparse_orchestrator.catalogue.upload_table import Known, UploadTable
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_proto.v1 import upload_pb2

_LOG = logging.getLogger(__name__)
_NOTE_FILES, _NOTE_SECONDS = 64, 2.0
"""Whole files are noted in the database so many at a time, or after so long."""
_ASKED_AT_ONCE = 8
"""Files that the store is asked for at the same time, by all calls together."""
_ASKED_IN_A_ROW = 4
"""Files that one thread asks for: to hand over each alone costs as much as to ask."""
_SWEEP_SECONDS = 600.0
_URL_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class UploadRules:
    """Limits of uploads."""

    max_bytes: int
    """Largest file."""
    url_bytes: int
    """Files from this size on have a URL; 0: none."""
    part_bytes: int
    """Files that are larger have one for each part of this size."""


class BlobUploads:
    """Receives files.

    Args:
        store: Where blobs are.
        table: The table of uploads.
        partials: Files of which a part has come.
        rules: Limits.
        signer: Signs URLs of the store; None: it has none.
    """

    def __init__(
        self,
        store: ObjectStore,
        table: UploadTable,
        partials: PartialFiles,
        rules: UploadRules,
        signer: DirectUploads | None = None,
    ) -> None:
        self.table = table
        self._store = store
        self._partials = partials
        self._rules = rules
        self._signer = signer
        self._asking = ThreadPoolExecutor(_ASKED_AT_ONCE, "checked")
        self._lock = threading.Lock()
        self._sweep_at = 0.0

    def has(self, hashes: Sequence[str]) -> list[str]:
        """Return those of some files that are there, in their order; raises StorageError."""
        present = self._present(self.table.find(hashes))
        return [sha256 for sha256 in hashes if sha256 in present]

    def _present(self, known: Mapping[str, Known]) -> set[str]:
        """Return those of known files that are whole, and in the store; raises StorageError."""
        whole = [sha256 for sha256, each in known.items() if each.complete]
        return self._those(whole, lambda sha256: self._store.exists(keys.blob(sha256)))

    def _those(self, hashes: Sequence[str], there: Callable[[str], bool]) -> set[str]:
        """Return those files of which the store says that they are there, asked by several threads."""
        rows = -(-len(hashes) // _ASKED_IN_A_ROW)

        def ask(row: int) -> list[str]:
            return [sha256 for sha256 in hashes[row::rows] if there(sha256)]

        return {sha256 for found in self._asking.map(ask, range(rows)) for sha256 in found}

    def start(self, files: Sequence[upload_pb2.UploadFile]) -> list[upload_pb2.UploadState]:
        """Begin files, and return how far each has come.

        Raises:
            InvalidArgument: A file has another size.
            ResourceExhausted: A file is too large, the project's quota would be exceeded, or the disk is full.
        """
        self._sweep()
        for file in files:
            if file.size > self._rules.max_bytes:
                raise ResourceExhausted(
                    f"File {file.sha256} has {file.size / 2**20:.1f} MiB; allowed: {self._rules.max_bytes / 2**20:g}.",
                    "files.size",
                )
        hashes = [file.sha256 for file in files]
        begun = self.table.find(hashes)
        self.table.begin(files)
        present = self._present(begun)
        present |= self._note_checked({sha256: each for sha256, each in begun.items() if sha256 not in present})
        states = [self._state(file, complete=file.sha256 in present) for file in files]
        to_store = {state.sha256 for state in states if state.complete or state.HasField("url_until")}
        missing = sum(
            file.size - state.offset for file, state in zip(files, states, strict=True) if state.sha256 not in to_store
        )
        if missing > self._partials.free_bytes():
            raise ResourceExhausted(f"The server's disk has no room for {missing / 2**20:.0f} MiB of uploads now.")
        return states

    def _state(self, file: upload_pb2.UploadFile, *, complete: bool) -> upload_pb2.UploadState:
        state = upload_pb2.UploadState(sha256=file.sha256, complete=complete)
        owner = new_owner() or ""
        state.offset = file.size if complete else min(file.size, self._partials.offset(owner, file.sha256))
        if not complete and not state.offset:
            self._add_urls(state, keys.incoming(owner, file.sha256), file.size)
            if state.url:
                self._add_checked_url(state)
        return state

    def _add_checked_url(self, state: upload_pb2.UploadState) -> None:
        """Say where a file is sent straight to the store if the store checks its hash."""
        try:
            found = self._signer and self._signer.checked_url(state.sha256, _sender(), _URL_SECONDS)
        except StorageError as error:  # `url` and SendUploads are left
            _LOG.warning("files are not sent to the store's own check: %s", error.message)
            return
        if found:
            state.checked.CopyFrom(upload_pb2.CheckedUrl(url=found.url, headers=found.headers))

    def _add_urls(self, state: upload_pb2.UploadState, key: str, size: int) -> None:
        """Say where a large file, or each of its parts, is sent straight to the store."""
        if self._signer is None or not 0 < self._rules.url_bytes <= size:
            return
        if size <= self._rules.part_bytes:
            state.url = self._signer.upload_url(key, _URL_SECONDS)
        else:
            try:
                found = self._signer.missing_parts(key, size, self._rules.part_bytes, _URL_SECONDS)
            except StorageError as error:  # the keys may not suffice for this; SendUploads is left
                _LOG.warning("a file is not sent in parts: %s", error.message)
                return
            missing = [upload_pb2.UploadPart(number=number, url=url) for number, url in found.urls.items()]
            state.parts.CopyFrom(
                upload_pb2.UploadParts(part_bytes=found.part_bytes, received=found.received, missing=missing)
            )
        state.url_until.CopyFrom(timestamp(now() + timedelta(seconds=_URL_SECONDS)))

    def receive(self, requests: Iterator[upload_pb2.SendUploadsRequest]) -> int:
        """Receive files; return how many are whole. What came before an exception stays.

        Raises:
            NotFound: A file was not begun.
            InvalidArgument: The messages come in a wrong order, or a file has another hash than it should.
            OutOfRange: A file begins at another byte than the next one.
            Aborted: Another call sends the same file.
            StorageError: Store or disk failed.
        """
        done = _Done(self.table, self._partials)
        partial: PartialFile | None = None
        sha256 = ""
        try:
            for request in requests:
                if request.WhichOneof("part") == "file":
                    if partial is not None:
                        self._partials.leave(partial)
                    sha256 = request.file.sha256
                    known = self.table.get(sha256)
                    partial = self._partials.go_on(new_owner() or "", sha256, request.file.offset, known.size)
                elif partial is None:
                    raise InvalidArgument("A chunk came before any file; name the file first.", "chunk")
                else:
                    partial.write(request.chunk)
                    if not request.chunk:
                        continue
                if partial.received == partial.size:
                    self._keep(partial, sha256)
                    done.add(sha256)
        finally:
            if partial is not None:
                self._partials.leave(partial)
            done.note()
        return done.count

    def _keep(self, partial: PartialFile, sha256: str) -> None:
        """Make a blob of a whole file."""
        found = partial.sha256()
        if found != sha256:
            self._partials.leave(partial)
            self._partials.remove(new_owner() or "", sha256)
            raise InvalidArgument(
                f"What came as file {sha256} has the SHA-256 {found}: nothing of it is kept; send it again.", "chunk"
            )
        keep_blob(self._store, sha256, partial.path)
        with suppress(CellsparseError):  # the store does it some day
            self._abort_parts(new_owner() or "", sha256, partial.size)

    def _abort_parts(self, owner: str, sha256: str, size: int) -> None:
        """Remove what has come of a file in parts; raises StorageError."""
        if self._signer and 0 < self._rules.url_bytes <= size and size > self._rules.part_bytes:
            self._signer.abort_parts(keys.incoming(owner, sha256))

    def finish(self, sha256: str) -> upload_pb2.UploadState:
        """Check a file that was sent to its URL, and make a blob of it.

        Raises:
            NotFound: It was not begun.
            FailedPrecondition: It, or a part of it, did not come, or the store has no URLs.
            InvalidArgument: It has another size or hash; it is removed.
            StorageError: The store failed.
        """
        known = self.table.get(sha256)
        if not (known.complete and self._store.exists(keys.blob(sha256))):
            if self._signer is None:
                raise FailedPrecondition("This store has no URLs for uploads; send the file with SendUploads.")
            key = keys.incoming(new_owner() or "", sha256)
            if known.size > self._rules.part_bytes:
                self._signer.complete_parts(key, known.size, self._rules.part_bytes)
            self._signer.adopt(key, sha256, known.size)
            self.table.complete([sha256])
        return upload_pb2.UploadState(sha256=sha256, offset=known.size, complete=True)

    def finish_checked(self, hashes: Sequence[str]) -> list[upload_pb2.UploadState]:
        """Return, for each file that was sent to its checked URL, whether it has come.

        Raises:
            NotFound: One was not begun.
            StorageError: The store failed.
        """
        known = self.table.get_all(hashes)
        there = self._present(known)
        there |= self._note_checked({sha256: each for sha256, each in known.items() if sha256 not in there})
        return [
            upload_pb2.UploadState(
                sha256=sha256, offset=known[sha256].size if sha256 in there else 0, complete=sha256 in there
            )
            for sha256 in hashes
        ]

    def _note_checked(self, begun: Mapping[str, Known]) -> set[str]:
        """Note which of some files have come to their checked URLs, and return these; raises StorageError."""
        if self._signer is None:
            return set()
        signer, sender = self._signer, _sender()
        asked = {sha256: each.size for sha256, each in begun.items() if each.size >= self._rules.url_bytes > 0}
        if not asked:
            return set()
        came = self._those(list(asked), lambda sha256: signer.has_checked(sha256, asked[sha256], sender))
        self.table.complete(sorted(came))
        return came

    def _sweep(self) -> None:
        """Remove uploads that nobody has gone on with in a long time, at times."""
        with self._lock:
            if time.monotonic() < self._sweep_at:
                return
            self._sweep_at = time.monotonic() + min(_SWEEP_SECONDS, self.table.keep.total_seconds() / 4)
        try:
            self.sweep()
        except CellsparseError as error:
            _LOG.warning("old uploads stay for now: %s", error.message)

    def sweep(self) -> None:
        """Remove uploads that nobody has gone on with in a long time, and what was left of others.

        Raises:
            StorageError: Store or disk failed.
        """
        for project_id, sha256, size in self.table.old():
            with suppress(CellsparseError):  # the store does it some day
                self._abort_parts(project_id, sha256, size)
        self.table.expire()
        for project_id, sha256 in list(self._partials):
            if not self.table.is_known(project_id, sha256):
                self._partials.remove(project_id, sha256)
        if self._signer is None:
            return
        for key in list(self._store.list(keys.INCOMING)):
            project_id, _, sha256 = key.removeprefix(keys.INCOMING).partition("/")
            if not self.table.is_known("" if project_id == "_" else project_id, sha256):
                self._store.delete(key)


def _sender() -> str:
    """Who sends files: the caller's project."""
    return new_owner() or "_"


class _Done:
    """Whole files, noted in the database a few at a time; what came of them is removed after that."""

    def __init__(self, table: UploadTable, partials: PartialFiles) -> None:
        self.count = 0
        self._table = table
        self._partials = partials
        self._waiting: list[str] = []
        self._since = time.monotonic()

    def add(self, sha256: str) -> None:
        """Take a file that is in the store."""
        self.count += 1
        self._waiting.append(sha256)
        if len(self._waiting) >= _NOTE_FILES or time.monotonic() - self._since > _NOTE_SECONDS:
            self.note()

    def note(self) -> None:
        """Note what waits; raises Unavailable."""
        waiting, self._waiting, self._since = self._waiting, [], time.monotonic()
        if waiting:
            self._table.complete(waiting)
            for sha256 in waiting:
                with suppress(CellsparseError):  # a sweep will
                    self._partials.remove(new_owner() or "", sha256)
