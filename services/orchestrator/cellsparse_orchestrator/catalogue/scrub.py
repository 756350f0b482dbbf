"""Scrub the store: read every blob, compare it with its hash and with what refers to it. Nothing is changed.

Blobs are listed before references are collected. So a dataset that is made meanwhile has its blobs in both, and only
the blobs of an upload that is still under way at the end count as unreferenced.
"""

import time
from collections.abc import Callable, Iterator

from cellsparse_common.errors import Damaged, NotFound, StorageError
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.catalogue.references import dataset_ids, image_blobs, manifest_blobs
from cellsparse_orchestrator.catalogue.scrub_ledger import Entry, ScrubLedger
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import admin_pb2

_SAY_SECONDS = 1.0
_MIB = 2**20
_MISSING = admin_pb2.SCRUB_PROBLEM_MISSING
_ROTTEN = admin_pb2.SCRUB_PROBLEM_ROTTEN
_UNREFERENCED = admin_pb2.SCRUB_PROBLEM_UNREFERENCED


class Scrub:
    """One scrub.

    Args:
        store: The store.
        database: The tables.
        ledger: Empty; keeps what was seen.
        mib_per_second: Most that is read per second.
        alive: Raises when nobody waits for the scrub any more.
    """

    def __init__(
        self,
        store: ObjectStore,
        database: Database,
        ledger: ScrubLedger,
        *,
        mib_per_second: int,
        alive: Callable[[], None],
    ) -> None:
        self._store = store
        self._database = database
        self._ledger = ledger
        self._rate = mib_per_second * _MIB
        self._alive = alive
        self._began = 0.0
        self._summary = admin_pb2.ScrubSummary()

    def run(self) -> Iterator[admin_pb2.ScrubResponse]:
        """Do it; yield progress, findings and the summary.

        Raises:
            StorageError: The store is away.
            Unavailable: The database is.
        """
        for key in self._store.list(keys.BLOBS):
            self._alive()
            if sha256 := keys.blob_sha256(key):
                self._ledger.add(sha256)
        yield from self._read_all()
        for finding in self._findings():
            self._alive()
            self._summary.missing += finding.problem == _MISSING
            self._summary.rotten += finding.problem == _ROTTEN
            self._summary.unreferenced += finding.problem == _UNREFERENCED
            yield admin_pb2.ScrubResponse(finding=finding)
        yield admin_pb2.ScrubResponse(summary=self._summary)

    def _read_all(self) -> Iterator[admin_pb2.ScrubResponse]:
        total = self._ledger.count()
        progress = admin_pb2.ScrubProgress(blobs_total=total)
        self._began = said = time.monotonic()
        yield admin_pb2.ScrubResponse(progress=progress)
        for sha256 in self._ledger.listed():
            for _ in self._read(sha256):
                progress.bytes_read = self._summary.bytes_read
                if time.monotonic() - said > _SAY_SECONDS:
                    said = time.monotonic()
                    yield admin_pb2.ScrubResponse(progress=progress)
            progress.blobs_done += 1
        yield admin_pb2.ScrubResponse(progress=progress)

    def _read(self, sha256: str) -> Iterator[None]:
        """Read a blob at the agreed rate and keep what it is like; yield now and then."""
        size, fault = 0, ""
        try:
            for part in self._store.read(keys.blob(sha256)):
                size += len(part)
                self._summary.bytes_read += len(part)
                self._pause()
                yield
        except NotFound:
            self._ledger.forget(sha256)
            return
        except Damaged as error:
            fault = error.message
        except StorageError as error:
            self._store.check()  # raises if it is not this object alone
            fault = f"Blob {sha256} cannot be read: {error.message}"
        self._summary.blobs += 1
        self._ledger.keep_size(sha256, size, fault)

    def _pause(self) -> None:
        """Wait until no more has been read than the rate allows."""
        while True:
            self._alive()
            ahead = self._began + self._summary.bytes_read / self._rate - time.monotonic()
            if ahead <= 0:
                return
            time.sleep(min(ahead, _SAY_SECONDS))

    def _findings(self) -> Iterator[admin_pb2.ScrubFinding]:
        yield from self._refer_datasets()
        for _, image_id, sha256 in image_blobs(self._database):
            self._ledger.refer(sha256, image_id)
        for entry in self._ledger.rotten():
            yield self._finding(_ROTTEN, entry, entry.fault)
        for entry in self._ledger.missing():
            if not self._store.exists(keys.blob(entry.sha256)):  # it may have come meanwhile
                yield self._finding(
                    _MISSING, entry, f"Blob {entry.sha256} is missing: upload the same image or labels again."
                )
        for entry in self._ledger.unreferenced():
            self._summary.unreferenced_bytes += entry.size
            yield self._finding(_UNREFERENCED, entry, f"Nothing refers to blob {entry.sha256} ({entry.size} bytes).")

    def _finding(self, problem: "admin_pb2.ScrubProblem", entry: Entry, message: str) -> admin_pb2.ScrubFinding:
        users, total = self._ledger.users(entry.sha256)
        return admin_pb2.ScrubFinding(
            problem=problem, key=keys.blob(entry.sha256), users=users, users_total=total, message=message
        )

    def _refer_datasets(self) -> Iterator[admin_pb2.ScrubFinding]:
        """Collect the blobs of all datasets, and of manifests that no dataset has; yield unusable manifests."""
        for _, dataset_id in dataset_ids(self._database):
            self._alive()
            try:
                self._refer(dataset_id)
            except (NotFound, Damaged) as error:
                problem = _MISSING if isinstance(error, NotFound) else _ROTTEN
                said = f"The manifest of dataset {dataset_id} is missing." if problem == _MISSING else error.message
                yield admin_pb2.ScrubFinding(
                    problem=problem,
                    key=keys.dataset_manifest(dataset_id),
                    users=[dataset_id],
                    users_total=1,
                    message=said,
                )
        for key in self._store.list(keys.DATASETS):
            dataset_id = key.removeprefix(keys.DATASETS).partition("/")[0]
            if keys.ID_PATTERN.fullmatch(dataset_id) and key == keys.dataset_manifest(dataset_id):
                self._alive()
                try:
                    self._refer(dataset_id)
                except (NotFound, Damaged):
                    continue  # told above, if it is the manifest of a dataset

    def _refer(self, dataset_id: str) -> None:
        for sha256 in manifest_blobs(self._store, dataset_id):
            self._ledger.refer(sha256, dataset_id)
