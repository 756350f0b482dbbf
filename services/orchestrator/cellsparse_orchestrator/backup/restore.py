"""Restore a snapshot into an empty database and an empty store, after all its bytes were compared with their hashes."""

import time
from pathlib import Path

from sqlalchemy import select

from cellsparse_common.errors import Damaged, FailedPrecondition, NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.backup import snapshots
from cellsparse_orchestrator.backup.backup import PREFIXES
from cellsparse_orchestrator.backup.database import load, read
from cellsparse_orchestrator.backup.listing import Listing, open_listing
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import LeaseRow

_LOOKS = 3


def restore(
    store: ObjectStore, database: Database, backup: ObjectStore, folder: Path, *, snapshot_id: str, lease_seconds: float
) -> snapshots.Snapshot:
    """Restore a snapshot. Nothing is written unless all of it is good.

    Args:
        store: The object store, empty.
        database: The database, empty; no orchestrator works with it.
        backup: The store that holds backups.
        folder: Empty, for temporary files.
        snapshot_id: Which; empty: the newest.
        lease_seconds: How long an orchestrator that works with the database may give no sign of life.

    Returns:
        The snapshot.

    Raises:
        NotFound: There is none.
        Damaged: It is torn or rotten.
        FailedPrecondition: Database or store are not empty, or an orchestrator works with them.
        StorageError: The store or the backup failed.
    """
    if not snapshot_id:
        ids = snapshots.snapshot_ids(backup)
        if not ids:
            raise NotFound(f"The backup {backup.url} has no complete snapshot.")
        snapshot_id = ids[-1]
    snapshot = snapshots.read_snapshot(backup, snapshot_id)
    file, listed = folder / snapshots.DATABASE, folder / snapshots.LISTING
    snapshots.fetch(backup, snapshot, snapshots.DATABASE, file)
    snapshots.fetch(backup, snapshot, snapshots.LISTING, listed)
    with open_listing(folder / "listing.db") as listing:
        listing.read(listed)
        for _ in read(file):
            pass
        _verify(backup, snapshot, listing)
        refuse_life(database, lease_seconds, "restore")
        for prefix in PREFIXES:
            for key in store.list(prefix):
                raise FailedPrecondition(f"The store is not empty, it has {key} for one; restore into an empty one.")
        with database.raw_connection() as connection:
            load(connection, file)  # rolled back unless all objects follow
            path = folder / "object"
            for entry in listing:
                backup.fetch(keys.blob(entry.sha256), path)
                store.put(entry.key, path)
    return snapshot


def _verify(backup: ObjectStore, snapshot: snapshots.Snapshot, listing: Listing) -> None:
    """Read every object of a snapshot and compare it with its hash."""
    if listing.totals() != (snapshot.objects, snapshot.bytes):
        raise Damaged(f"Snapshot {snapshot.id} is torn: its listing has another number of objects or bytes.")
    for entry in listing:
        try:
            size = sum(len(part) for part in backup.read(keys.blob(entry.sha256)))
        except NotFound:
            raise Damaged(
                f"Snapshot {snapshot.id} is torn: {entry.key} ({keys.blob(entry.sha256)}) is missing from the backup; "
                "choose another one."
            ) from None
        except Damaged:
            raise Damaged(
                f"Snapshot {snapshot.id} is rotten: the bytes of {entry.key} ({keys.blob(entry.sha256)}) are not those "
                "that were backed up; choose another one."
            ) from None
        if size != entry.size:
            raise Damaged(f"Snapshot {snapshot.id} is rotten: {entry.key} has {size} bytes instead of {entry.size}.")


def refuse_life(database: Database, lease_seconds: float, what: str) -> None:
    """Refuse if an orchestrator gives signs of life in the database.

    Args:
        database: The database.
        lease_seconds: How long an orchestrator that works with it may give no sign of life.
        what: What it must be stopped for, a verb.

    Raises:
        FailedPrecondition: One works with it.
    """
    seen: set[tuple[int, int]] = set()
    for look in range(_LOOKS):
        with database.read() as session:
            row = session.execute(select(LeaseRow.fence, LeaseRow.beat, LeaseRow.holder)).one()
        if not row.holder:
            return
        seen.add((row.fence, row.beat))
        if len(seen) > 1:
            raise FailedPrecondition(f"An orchestrator works with the database; stop it before you {what}.")
        if look < _LOOKS - 1:
            time.sleep(lease_seconds / _LOOKS)
