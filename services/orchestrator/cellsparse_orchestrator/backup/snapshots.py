"""Snapshots in a backup. Their objects are blobs, so that each is there once; a small object, written last, names all.

blobs/<sha256[:2]>/<sha256>            objects of the store, by their hash
snapshots/<id>/database.jsonl.gz       the database
snapshots/<id>/listing.jsonl.gz        key, size and hash of every object
snapshots/<id>/snapshot.json           written last: hashes of these two files, counts, versions
"""

import hashlib
import json
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cellsparse_common.errors import Damaged, NotFound
from cellsparse_common.files import sha256_of
from cellsparse_common.storage import ObjectStore

SNAPSHOTS = "snapshots/"
DATABASE, LISTING, SNAPSHOT = "database.jsonl.gz", "listing.jsonl.gz", "snapshot.json"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One backup."""

    id: str
    """Begins with the time, UTC, so that ids sort by it."""
    made_at: str
    layout: str
    """Of the database."""
    objects: int
    bytes: int
    database_sha256: str
    listing_sha256: str


def publish(backup: ObjectStore, snapshot: Snapshot, database: Path, listing: Path) -> None:
    """Write a snapshot whose objects are all there."""
    backup.put(_key(snapshot.id, DATABASE), database)
    backup.put(_key(snapshot.id, LISTING), listing)
    content = asdict(snapshot)
    text = json.dumps({"snapshot": content, "sha256": _digest(content)}, indent=1)
    backup.put(_key(snapshot.id, SNAPSHOT), text.encode())


def snapshot_ids(backup: ObjectStore) -> list[str]:
    """Return the ids of all complete snapshots, oldest first."""
    return [key.split("/")[1] for key in backup.list(SNAPSHOTS) if key.endswith(f"/{SNAPSHOT}")]


def others(backup: ObjectStore, stay: Set[str]) -> list[str]:
    """Return the keys of all snapshots but some, whole or torn; of each the one that makes it a snapshot first."""
    found = [key for key in backup.list(SNAPSHOTS) if key.split("/")[1] not in stay]
    return sorted(found, key=lambda key: not key.endswith(f"/{SNAPSHOT}"))


def read_snapshot(backup: ObjectStore, snapshot_id: str) -> Snapshot:
    """Return a snapshot.

    Raises:
        NotFound: There is none.
        Damaged: It is torn or rotten.
    """
    try:
        found = json.loads(backup.get(_key(snapshot_id, SNAPSHOT)))
        if _digest(found["snapshot"]) != found["sha256"]:
            raise ValueError("it has another hash")
        return Snapshot(**found["snapshot"])
    except NotFound:
        if next(iter(backup.list(f"{SNAPSHOTS}{snapshot_id}/")), None) is None:
            raise NotFound(f"The backup {backup.url} has no snapshot {snapshot_id!r}.") from None
        raise Damaged(f"Snapshot {snapshot_id} is torn: its backup was not finished; choose another one.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"Snapshot {snapshot_id} is rotten: {SNAPSHOT} cannot be read ({error}).") from error


def fetch(backup: ObjectStore, snapshot: Snapshot, name: str, target: Path) -> None:
    """Copy a snapshot's database or listing to a file; raises Damaged if it is missing or rotten."""
    try:
        backup.fetch(_key(snapshot.id, name), target)
    except NotFound:
        raise Damaged(f"Snapshot {snapshot.id} is torn: its {name} is missing; choose another one.") from None
    expected = snapshot.database_sha256 if name == DATABASE else snapshot.listing_sha256
    if sha256_of(target) != expected:
        raise Damaged(f"Snapshot {snapshot.id} is rotten: its {name} has another hash; choose another one.")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _key(snapshot_id: str, name: str) -> str:
    return f"{SNAPSHOTS}{snapshot_id}/{name}"
