"""One collection of the store, safe beside uploads and attempts.

1. Rows of what was deleted longer ago than the grace time are removed. From then on it cannot be undeleted.
2. What nothing refers to is found, and remembered in a table with the time at which it was found so first.
3. What nothing has referred to for long enough is removed, a few objects at a time, while nobody publishes
   (`db.publishing`). Just before, the collector looks once more whether anything refers to it by now.

A collection that is killed anywhere leaves only what the next one finds again: rows go first, objects after them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, cast

from sqlalchemy import delete, func, select

from cellsparse_common.errors import Damaged, NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.catalogue.deletion import TABLES
from cellsparse_orchestrator.catalogue.references import (
    dataset_ids,
    image_blobs,
    is_uploaded,
    manifest_blobs,
    uploaded_blobs,
)
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.collection.hold import refuse_while_held
from cellsparse_orchestrator.collection.installation import check_installation
from cellsparse_orchestrator.collection.ledger import CollectionLedger
from cellsparse_orchestrator.collection.leftovers import (
    BLOBS,
    CHECKPOINTS,
    DATASETS,
    PROJECTS,
    PROMPTERS,
    RUNS,
    STUDIES,
    TRANSFERS,
    Leftover,
    Leftovers,
)
from cellsparse_orchestrator.collection.unreferenced import Unreferenced
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow, ProjectImageRow
from cellsparse_proto.v1 import admin_pb2

_BATCH = 100
"""Objects that are removed while publishers wait."""
_ROWS = 20
LONGEST_CALL = timedelta(days=2)
"""No call that hands an object to a trainer goes on for so long: a day is the most that settings allow."""
Kind = admin_pb2.CollectKind


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is collected when."""

    now: datetime
    """When it began."""
    grace: timedelta
    """How long deleted things can be undeleted."""
    wait: timedelta
    """How long nothing must have referred to an object."""
    checkpoint_days: float
    """Days after which a run that has ended keeps two checkpoints only."""
    dry_run: bool = False
    """Remove nothing."""
    busy_seconds: float = 30.0
    """Longest wait for a moment in which nobody publishes."""


class Collector:
    """One collection.

    Args:
        store: The store.
        database: The tables.
        ledger: Empty; keeps what was seen.
        rules: What is collected when.
        alive: Raises when the collection is to end.
        clock: Returns the time.
    """

    def __init__(
        self,
        store: ObjectStore,
        database: Database,
        ledger: CollectionLedger,
        rules: Rules,
        alive: Callable[[], None] = lambda: None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._store = store
        self._database = database
        self._ledger = ledger
        self._rules = rules
        self._alive = alive
        self._clock = clock
        self._unreferenced = Unreferenced(database)
        self._expired = rules.now - rules.grace
        self._leftovers = Leftovers(
            store, database, expired=self._expired, now=rules.now, checkpoint_days=rules.checkpoint_days
        )
        self._summary = admin_pb2.CollectSummary(dry_run=rules.dry_run)
        self._parts: dict[int, admin_pb2.Collected] = {}
        self._progress = admin_pb2.CollectProgress()
        self._gone: set[str] = set()
        """Ids of what a dry run would have removed."""
        self._busy_seconds = rules.busy_seconds
        self._saw_blobs = False
        self._newest = (0, 0)
        """Numbers of the newest dataset and image whose blobs are known to the ledger."""

    def run(self) -> Iterator[admin_pb2.CollectResponse]:
        """Do it; yield progress and the summary.

        Raises:
            FailedPrecondition: The store is another installation's.
            StorageError: The store is away.
            Unavailable: The database is, or another orchestrator has taken over.
        """
        refuse_while_held(self._database)
        check_installation(self._store, self._database, claim=not self._rules.dry_run)
        self._remove_rows()
        for kind in (DATASETS, RUNS, STUDIES, PROJECTS, PROMPTERS, TRANSFERS):
            yield from self._collect(kind, self._leftovers.find(kind, self._seen))
        yield from self._collect_blobs()
        if not self._rules.dry_run:
            self._unreferenced.forget_where(self._referred_again)
        self._summary.collected.extend(self._parts[kind] for kind in sorted(self._parts))
        for part in self._summary.collected:
            self._summary.objects += part.objects
            self._summary.bytes += part.bytes
            self._summary.waiting_objects += part.waiting_objects
            self._summary.waiting_bytes += part.waiting_bytes
        yield admin_pb2.CollectResponse(summary=self._summary)

    def _remove_rows(self) -> None:
        """Remove the rows of what was deleted before the grace time."""
        for table in TABLES.values():
            due = table.deleted_at <= self._expired
            if self._rules.dry_run:
                with self._database.read() as session:
                    self._summary.expired += session.scalar(select(func.count()).where(due)) or 0
                continue
            while True:
                self._alive()
                with self._database.write() as session:
                    ids = list(session.scalars(select(table.id).where(due).limit(_ROWS).with_for_update()))
                    session.execute(delete(table).where(table.id.in_(ids), due))
                if not ids:
                    break
                self._summary.expired += len(ids)

    def _collect(self, kind: int, found: Iterator[Leftover]) -> Iterator[admin_pb2.CollectResponse]:
        """Remember leftovers, and remove those that are old enough."""
        yield self._say(kind)
        while batch := list(islice(found, _BATCH)):
            self._alive()
            yield self._say(kind)
            removed: list[str] = []
            for left in self._ripe(batch):
                yield from self._remove_all(left, removed)
            self._unreferenced.forget(removed)

    def _ripe(self, batch: Sequence[Leftover]) -> list[Leftover]:
        """Remember leftovers; return those that nothing has referred to for long enough, and count the others."""
        rules = self._rules
        # Not when the collection began: it may take days, and what it finds at its end may be an hour old.
        time = self._clock()
        waiting = [left.prefix for left in batch if left.kind != CHECKPOINTS]  # they have waited already
        since = self._unreferenced.since(waiting, time, keep=not rules.dry_run)
        ripe = []
        for left in batch:
            self._ledger.find(left.prefix)
            wait = max(rules.wait, LONGEST_CALL) if left.kind == TRANSFERS else rules.wait
            if left.kind == CHECKPOINTS or since[left.prefix] <= time - wait:
                ripe.append(left)
                continue
            for key in self._keys(left):
                part = self._part(left.kind)
                part.waiting_objects += 1
                part.waiting_bytes += self._size(key)
        return ripe

    def _remove_all(self, left: Leftover, removed: list[str]) -> Iterator[admin_pb2.CollectResponse]:
        """Remove the objects of a leftover, a few at a time; add it to those that are removed."""
        if self._rules.dry_run:
            self._gone.add(left.id)
            for key in self._keys(left):
                self._count(left.kind, self._size(key))
            return
        while True:
            some = list(islice(self._keys(left), _BATCH))
            if not some:
                break
            if not self._remove(left, some):
                return
            yield self._say(left.kind)
        removed.append(left.prefix)

    def _remove(self, left: Leftover, some: Sequence[str]) -> bool:
        """Remove some objects while nobody publishes, unless something refers to them by now; return whether."""
        with self._alone(left.kind) as alone:
            if not alone:
                return False
            if left.kind == BLOBS:
                self._refer_new()
                used = self._ledger.is_referred(left.id) or is_uploaded(self._database, left.id)
            else:
                used = not self._leftovers.still(left)
            if used:
                return False
            refuse_while_held(self._database)
            for key in some:
                self._alive()
                size = self._size(key)
                self._database.confirm_lease()
                self._store.delete(key)
                self._count(left.kind, size)
        return True

    def _collect_blobs(self) -> Iterator[admin_pb2.CollectResponse]:
        yield self._say(BLOBS)
        for key in self._store.list(keys.BLOBS):
            self._alive()
            self._seen()
            if sha256 := keys.blob_sha256(key):
                self._ledger.list_blob(sha256)
        # Whoever publishes now has a number from before: numbers of rows that are not yet there are larger.
        with self._alone(BLOBS) as alone:
            if not alone:
                return
            self._newest = self._newest_numbers()
        yield self._say(BLOBS)
        try:
            self._refer_all()
        except Damaged as error:
            # What its blobs are is not known, so that none can be told from those that nothing refers to.
            self._leave_out(BLOBS, error.message.rstrip("."))
            return
        self._saw_blobs = True
        blobs = self._ledger.unreferred_blobs()
        found = (Leftover(kind=BLOBS, prefix=keys.blob(sha256), id=sha256) for sha256 in blobs)
        yield from self._collect(BLOBS, found)

    def _refer_all(self) -> None:
        """Collect what all datasets and images refer to, and all manifests that no row has, for now."""
        for _, dataset_id in dataset_ids(self._database):
            self._alive()
            if dataset_id not in self._gone:
                try:
                    self._refer(dataset_id)
                except NotFound:
                    raise Damaged(f"The manifest of dataset {dataset_id} is missing.") from None
        for _, image_id, sha256 in image_blobs(self._database):
            if image_id not in self._gone:
                self._ledger.refer(sha256)
        for sha256 in uploaded_blobs(self._database):
            self._ledger.refer(sha256)
        for key in self._store.list(keys.DATASETS):
            dataset_id = key.removeprefix(keys.DATASETS).partition("/")[0]
            if keys.ID_PATTERN.fullmatch(dataset_id) and key == keys.dataset_manifest(dataset_id):
                self._alive()
                try:
                    if dataset_id not in self._gone:
                        self._refer(dataset_id)
                except (NotFound, Damaged):
                    continue  # of no dataset: those have been read above

    def _refer_new(self) -> None:
        """Collect what datasets and images refer to that were made since; called while nobody publishes."""
        dataset, image = self._newest
        for number, dataset_id in dataset_ids(self._database, dataset):
            self._refer(dataset_id)
            dataset = number
        for number, _, sha256 in image_blobs(self._database, image):
            self._ledger.refer(sha256)
            image = number
        self._newest = dataset, image

    def _refer(self, dataset_id: str) -> None:
        for sha256 in manifest_blobs(self._store, dataset_id):
            self._ledger.refer(sha256)

    @contextmanager
    def _alone(self, kind: int) -> Iterator[bool]:
        """Give whether nobody publishes; after the first vain wait there is no other."""
        with self._database.publishing.keep_out(self._busy_seconds) as alone:
            if not alone:
                self._busy_seconds = 0.0
                self._leave_out(kind, "something was being published all the time")
            yield alone

    def _referred_again(self, found: Sequence[str]) -> list[str]:
        """Return those of some keys to which something refers by now, as far as has been looked."""
        return [key for key in self._ledger.not_found(found) if self._saw_blobs or not keys.blob_sha256(key)]

    def _newest_numbers(self) -> tuple[int, int]:
        with self._database.read() as session:
            dataset, image = (
                session.scalar(select(func.max(table.number))) or 0 for table in (DatasetRow, ProjectImageRow)
            )
        return dataset, image

    def _keys(self, left: Leftover) -> Iterator[str]:
        if not left.prefix.endswith("/"):
            yield from [left.prefix] if self._store.exists(left.prefix) else []
            return
        for key in self._store.list(left.prefix):
            if not (left.but_not and key.startswith(left.but_not)):
                yield key

    def _size(self, key: str) -> int:
        try:
            return self._store.size(key)
        except NotFound:  # removed meanwhile
            return 0

    def _count(self, kind: int, size: int) -> None:
        part = self._part(kind)
        part.objects += 1
        part.bytes += size

    def _part(self, kind: int) -> admin_pb2.Collected:
        return self._parts.setdefault(kind, admin_pb2.Collected(kind=_kind(kind)))

    def _leave_out(self, kind: int, reason: str) -> None:
        name = Kind.Name(Kind.ValueType(kind)).removeprefix("COLLECT_KIND_").lower()
        sentence = f"Some {name} that nothing refers to may stay until the next collection: {reason}."
        if sentence not in self._summary.left_out:
            self._summary.left_out.append(sentence)

    def _seen(self) -> None:
        self._progress.objects += 1

    def _say(self, kind: Any) -> admin_pb2.CollectResponse:
        if self._progress.kind != kind:
            self._progress.kind, self._progress.objects = kind, 0
        return admin_pb2.CollectResponse(progress=self._progress)


def _kind(number: int) -> "admin_pb2.CollectKind":
    return cast("admin_pb2.CollectKind", number)
