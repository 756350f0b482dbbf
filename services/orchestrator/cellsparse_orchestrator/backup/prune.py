"""Remove old snapshots from a backup, and the blobs that no other snapshot refers to.

Everything that stays is read before anything is removed: if a listing that stays is rotten, nothing is. A snapshot's
last small object goes first, so that one whose removal was killed is no snapshot any more; the next one removes the
rest of it. No backup goes on meanwhile (see `hold`): it would rely on blobs that are removed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.backup import snapshots
from cellsparse_orchestrator.backup.listing import open_listing
from cellsparse_orchestrator.collection.ledger import open_ledger


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which snapshots stay: those that any of the two rules keeps, and the newest in any case."""

    newest: int = 0
    """So many; 0: no rule."""
    days: float = 0.0
    """Those of so many days; 0: no rule."""

    @property
    def all(self) -> bool:
        """Whether nothing is removed."""
        return not self.newest and not self.days


@dataclass(kw_only=True)
class Pruned:
    """What was removed."""

    snapshots: int = 0
    blobs: int = 0
    bytes: int = 0


def choose(found: Sequence[snapshots.Snapshot], keep: Keep, now: datetime) -> list[snapshots.Snapshot]:
    """Return the snapshots that stay.

    Args:
        found: All snapshots, oldest first.
        keep: The rules.
        now: The time.
    """
    if keep.all:
        return list(found)
    newest = {each.id for each in found[-max(1, keep.newest) :]}
    since = now - timedelta(days=keep.days)
    young = {each.id for each in found if keep.days and _time(each) >= since}
    return [each for each in found if each.id in newest | young]


def prune(backup: ObjectStore, folder: Path, keep: Keep, now: datetime, alive: Callable[[], None]) -> Pruned:
    """Remove the snapshots that do not stay, and all blobs that only they refer to.

    Args:
        backup: The backup.
        folder: Empty, for temporary files.
        keep: Which snapshots stay.
        now: The time.
        alive: Raises when nothing more may be removed.

    Raises:
        Damaged: A snapshot or its listing is rotten; nothing was removed.
        StorageError: The backup does not answer.
    """
    pruned = Pruned()
    if keep.all:
        return pruned
    found = [snapshots.read_snapshot(backup, each) for each in snapshots.snapshot_ids(backup)]
    found.sort(key=_time)  # ids tell seconds only
    stay = choose(found, keep, now)
    if not stay:
        return pruned
    with open_ledger(folder) as ledger:
        for number, snapshot in enumerate(stay):
            path = folder / "listing.jsonl.gz"
            snapshots.fetch(backup, snapshot, snapshots.LISTING, path)
            with open_listing(folder / f"stays-{number}.db") as listing:
                listing.read(path)
                for entry in listing:
                    ledger.refer(entry.sha256)
            (folder / f"stays-{number}.db").unlink()
        for key in snapshots.others(backup, {each.id for each in stay}):
            alive()
            backup.delete(key)
        pruned.snapshots = len(found) - len(stay)
        for key in backup.list(keys.BLOBS):
            if sha256 := keys.blob_sha256(key):
                ledger.list_blob(sha256)
        for sha256 in ledger.unreferred_blobs():
            alive()
            pruned.bytes += backup.size(keys.blob(sha256))
            pruned.blobs += 1
            backup.delete(keys.blob(sha256))
    return pruned


def _time(snapshot: snapshots.Snapshot) -> datetime:
    return datetime.fromisoformat(snapshot.made_at)
