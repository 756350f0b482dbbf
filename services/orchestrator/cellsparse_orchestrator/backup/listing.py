"""The listing of a snapshot: all objects with size and hash, in a file, so that memory does not grow with the store."""

import gzip
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cellsparse_common.errors import Damaged, StorageError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An object of the store."""

    key: str
    size: int
    sha256: str
    settled: bool
    """It never changes."""


class Listing:
    """Entries by key."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE entries (key TEXT PRIMARY KEY, size INTEGER, sha256 TEXT, settled INTEGER) WITHOUT ROWID;"
        )

    def add(self, entry: Entry) -> None:
        """Add an entry, or replace the one of its key."""
        values = (entry.key, entry.size, entry.sha256, entry.settled)
        self._connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", values)

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key."""
        row = self._connection.execute("SELECT * FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else _entry(row)

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries in the order of their keys."""
        for row in self._connection.execute("SELECT * FROM entries ORDER BY key"):
            yield _entry(row)

    def totals(self) -> tuple[int, int]:
        """Return the number of objects and of their bytes."""
        count, size = self._connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM entries").fetchone()
        return int(count), int(size)

    def write(self, path: Path) -> None:
        """Write all entries to a file, compressed."""
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=4) as file:
            for each in self:
                file.write(json.dumps([each.key, each.size, each.sha256, each.settled]) + "\n")

    def read(self, path: Path) -> None:
        """Add the entries of a file; raises Damaged."""
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                for line in file:
                    self.add(_entry(json.loads(line)))
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise Damaged(f"The listing of the backup cannot be read: {error}.") from error


def _entry(row: tuple[str, int, str, int]) -> Entry:
    key, size, sha256, settled = row
    return Entry(key=key, size=size, sha256=sha256, settled=bool(settled))


@contextmanager
def open_listing(path: Path) -> Iterator[Listing]:
    """Give an empty listing in a new file, for the `with` block; raises StorageError."""
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            yield Listing(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StorageError(f"The listing of the backup cannot be kept in a file: {error}.") from error
