"""Make a snapshot: one state of the database, and every object that it refers to.

The database is read first, then all objects are copied. What the database refers to may be replaced meanwhile, such as
a tile that somebody paints on. So it is looked up afterwards, and if some of it is missing the whole is done once more,
which copies only what is new. Collections wait as long as a backup goes on.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellsparse_common.errors import Damaged, NotFound
from cellsparse_common.files import disk_errors, sha256_of
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.backup import snapshots
from cellsparse_orchestrator.backup.database import dump
from cellsparse_orchestrator.backup.hold import backing_up
from cellsparse_orchestrator.backup.listing import Entry, Listing, open_listing
from cellsparse_orchestrator.catalogue.references import manifest_blobs
from cellsparse_orchestrator.clock import new_id, now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow, LabelTileRow, ModelRow, ProjectImageRow, RunRow

_LOG = logging.getLogger(__name__)
PREFIXES = (
    keys.BLOBS,
    keys.DATASETS,
    keys.installation(),
    keys.PROJECTS,
    keys.PROMPTERS,
    keys.RUNS,
    keys.STUDIES,
)
"""What is backed up; not what exists during a call only, nor images that others have put into the store."""
_NEEDED = "needed.txt"
_MOST_MISSING = 20
_CARD = "model.json"
"""File that every model has."""
_ROUNDS = 5
_POINTER_ROUNDS = 5
_FINAL = [run_states.state_name(state) for state in run_states.FINAL]
_POINTERS: tuple[keys.Pointer, ...] = ("LATEST", "BEST")


@dataclass(kw_only=True)
class Report:
    """What a backup did."""

    snapshot: snapshots.Snapshot
    copied: int = 0
    """Objects that were not in the backup."""
    copied_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    """Keys of objects that the database refers to and the store does not have, the first few."""


class Backup:
    """One backup.

    Args:
        store: The object store.
        database: The database, in the newest layout.
        backup: The store that holds backups.
        folder: Empty, for temporary files.
    """

    def __init__(self, store: ObjectStore, database: Database, backup: ObjectStore, folder: Path) -> None:
        self._store = store
        self._database = database
        self._backup = backup
        self._folder = folder
        self._copied = self._copied_bytes = 0
        self._ended: set[str] = set()
        """Ids of runs that had ended when the database was read, and of models."""

    def run(self) -> Report:
        """Do it.

        Raises:
            FailedPrecondition: Old snapshots are being removed.
            StorageError: The store or the backup failed.
            Unavailable: The database did, or has not answered for too long.
        """
        file = self._folder / snapshots.DATABASE
        with backing_up(self._database) as alive, open_listing(self._folder / "before.db") as before:
            self._read_newest(before)
            missing: list[str] = []
            for number in range(_ROUNDS):
                with open_listing(self._folder / f"listing-{number}.db") as listing:
                    self._dump(file)
                    self._copy_all(before, listing)
                    found = self._missing(listing)
                    # What two rounds have not found was lost before.
                    if not found or found == missing or number == _ROUNDS - 1:
                        alive()  # else some of it may have been removed
                        return self._publish(file, listing, found)
                    missing = found
                    for entry in listing:
                        before.add(entry)
        raise AssertionError

    def _dump(self, file: Path) -> None:
        with disk_errors(f"write {file}"), self._database.read() as session:
            dump(session, self._database.migration.after, file)
            with (self._folder / _NEEDED).open("w") as needed:
                needed.writelines(f"{key}\n" for key in _needed(session))
            self._ended = set(session.scalars(select(RunRow.id).where(RunRow.state.in_(_FINAL))))

    def _copy_all(self, before: Listing, listing: Listing) -> None:
        """Copy all objects that are not in the backup, and list all."""
        going = self._going()
        for prefix in PREFIXES:
            for key in self._store.list(prefix):
                trains = any(key.startswith(keys.checkpoints_prefix(run_id)) for run_id in going & {_run_of(key)})
                if not trains and not _is_made_anew(key):
                    self._copy(key, before, listing)
        for run_id in sorted(going):
            self._copy_checkpoints(run_id, before, listing)

    def _copy(self, key: str, before: Listing, listing: Listing) -> Entry | None:
        """Copy an object unless it is in the backup; None if it has gone meanwhile."""
        known = before.find(key)
        if known is not None and known.settled and self._has(known):
            listing.add(known)
            return known
        settled = self._is_settled(key)
        sha256 = keys.blob_sha256(key)
        path = self._folder / "object"
        try:
            if sha256 and self._has(Entry(key=key, size=(size := self._store.size(key)), sha256=sha256, settled=True)):
                entry = Entry(key=key, size=size, sha256=sha256, settled=True)
                listing.add(entry)
                return entry
            self._store.fetch(key, path)
        except NotFound:
            return None
        except Damaged as error:  # rotten in the store: whoever uses it is told so, with or without a backup
            _LOG.warning("%s", error.message)
            return None
        entry = Entry(key=key, size=path.stat().st_size, sha256=sha256_of(path), settled=settled)
        if not self._has(entry):
            self._backup.put(keys.blob(entry.sha256), path)
            self._copied += 1
            self._copied_bytes += entry.size
        listing.add(entry)
        return entry

    def _has(self, entry: Entry) -> bool:
        try:
            return self._backup.size(keys.blob(entry.sha256)) == entry.size
        except NotFound:
            return False

    def _is_settled(self, key: str) -> bool:
        """Whether an object never changes again."""
        if keys.blob_sha256(key) or key.startswith(keys.PROMPTERS):
            return True
        if key.startswith(keys.PROJECTS):
            return key.split("/")[4:5] == ["pixels"]
        return _run_of(key) in self._ended and "/checkpoints/" in key

    def _going(self) -> set[str]:
        with self._database.read() as session:
            return set(session.scalars(select(RunRow.id).where(RunRow.state.not_in(_FINAL))))

    def _copy_checkpoints(self, run_id: str, before: Listing, listing: Listing) -> None:
        """Copy the checkpoints of a run that trains, so that each pointer means one that is there, whole."""
        for _ in range(_POINTER_ROUNDS):
            pointers = [keys.checkpoint_pointer(run_id, name) for name in _POINTERS]
            whole = [self._copy_checkpoint(run_id, key, before, listing) for key in pointers]
            if all(whole):
                return
        _LOG.warning("run %s wrote checkpoints all the time; its newest are not in the backup", run_id)

    def _copy_checkpoint(self, run_id: str, pointer: str, before: Listing, listing: Listing) -> bool:
        """Copy a checkpoint, then the pointer to it; return whether it is there, or there is none."""
        try:
            data = self._store.get(pointer)
            found = json.loads(data)
            for name, sha256 in found["files"].items():
                entry = self._copy(keys.checkpoint(run_id, found["step"], name), before, listing)
                if entry is None or entry.sha256 != sha256:
                    return False
        except NotFound:
            return True
        except (ValueError, KeyError, TypeError):
            return True
        path = self._folder / "pointer"
        path.write_bytes(data)
        entry = Entry(key=pointer, size=len(data), sha256=sha256_of(path), settled=False)
        if not self._has(entry):
            self._backup.put(keys.blob(entry.sha256), path)
        listing.add(entry)
        return True

    def _missing(self, listing: Listing) -> list[str]:
        """Return the keys of what the database referred to and what is not listed, the first few."""
        found: list[str] = []
        with (self._folder / _NEEDED).open() as needed:
            for line in needed:
                key = line.rstrip("\n")
                found += [each for each in {key: 0, **self._blobs_of(key)} if listing.find(each) is None]
                if len(found) >= _MOST_MISSING:
                    break
        return found[:_MOST_MISSING]

    def _blobs_of(self, key: str) -> dict[str, int]:
        """Return the keys of the blobs of a dataset, if the key is that of its manifest."""
        if not key.startswith(keys.DATASETS):
            return {}
        try:
            return {keys.blob(sha256): 0 for sha256 in manifest_blobs(self._store, key.split("/")[1])}
        except (NotFound, Damaged):
            return {}

    def _publish(self, file: Path, listing: Listing, missing: list[str]) -> Report:
        written = self._folder / snapshots.LISTING
        with disk_errors(f"write {written}"):
            listing.write(written)
        objects, size = listing.totals()
        made = now()
        snapshot = snapshots.Snapshot(
            id=f"{made:%Y%m%dt%H%M%S}-{new_id('s').rpartition('-')[2]}",
            made_at=made.isoformat(),
            layout=self._database.migration.after,
            objects=objects,
            bytes=size,
            database_sha256=sha256_of(file),
            listing_sha256=sha256_of(written),
        )
        snapshots.publish(self._backup, snapshot, file, written)
        return Report(snapshot=snapshot, copied=self._copied, copied_bytes=self._copied_bytes, missing=missing)

    def _read_newest(self, before: Listing) -> None:
        """Read the listing of the newest snapshot, if it is whole."""
        for snapshot_id in reversed(snapshots.snapshot_ids(self._backup)):
            path = self._folder / "before.jsonl.gz"
            try:
                snapshots.fetch(
                    self._backup, snapshots.read_snapshot(self._backup, snapshot_id), snapshots.LISTING, path
                )
                before.read(path)
            except Damaged as error:
                _LOG.warning("%s", error.message)
                continue
            return


def _needed(session: Session) -> Iterator[str]:
    """Yield the keys of what a transaction sees rows for, without blobs of datasets."""
    for dataset_id in session.scalars(select(DatasetRow.id)):
        yield keys.dataset_manifest(dataset_id)
    for sha256 in session.scalars(select(ProjectImageRow.sha256)):
        yield keys.blob(sha256)
    for model_id in session.scalars(select(ModelRow.id)):
        yield keys.model_file(model_id, _CARD)
    tiles = (
        select(ProjectImageRow.project_id, LabelTileRow.image_id, LabelTileRow.layer_id, LabelTileRow.object)
        .join(ProjectImageRow, ProjectImageRow.id == LabelTileRow.image_id)
        .where(LabelTileRow.object != "")
    )
    for project_id, image_id, layer_id, name in session.execute(tiles, execution_options={"yield_per": 1000}):
        yield keys.label_tile(project_id, image_id, layer_id, name)


def _is_made_anew(key: str) -> bool:
    """Whether an object is made of others when it is missing: a coarse label tile.

    Its name is a revision. One that was made while the backup went on may be of a revision that the database does not
    have yet; after a restore it would be taken for that of the next edit.
    """
    tile = keys.parse_label_tile(key)
    return tile is not None and tile.level > 0


def _run_of(key: str) -> str:
    return key.split("/")[1] if key.startswith(keys.RUNS) else ""
