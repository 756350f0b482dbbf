"""What a collection has seen, in a file, so that memory does not grow with the store."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cellsparse_common.errors import StorageError

_PAGE = 1000
_TABLES = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
CREATE TABLE blobs (sha256 TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE referred (sha256 TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE found (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class CollectionLedger:
    """Blobs of the store, those that something refers to, and all that nothing refers to."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(_TABLES)

    def list_blob(self, sha256: str) -> None:
        """Keep that the store lists a blob."""
        self._connection.execute("INSERT OR IGNORE INTO blobs VALUES (?)", (sha256,))

    def refer(self, sha256: str) -> None:
        """Keep that something refers to a blob."""
        self._connection.execute("INSERT OR IGNORE INTO referred VALUES (?)", (sha256,))

    def is_referred(self, sha256: str) -> bool:
        """Whether something refers to a blob."""
        return bool(self._connection.execute("SELECT 1 FROM referred WHERE sha256 = ?", (sha256,)).fetchone())

    def unreferred_blobs(self) -> Iterator[str]:
        """Yield the blobs that nothing refers to, in ascending order; more may be referred to meanwhile."""
        last = ""
        while True:
            query = (
                "SELECT sha256 FROM blobs WHERE sha256 > ? AND sha256 NOT IN (SELECT sha256 FROM referred) "
                "ORDER BY sha256 LIMIT ?"
            )
            rows = self._connection.execute(query, (last, _PAGE)).fetchall()
            if not rows:
                return
            yield from (sha256 for (sha256,) in rows)
            last = rows[-1][0]

    def find(self, key: str) -> None:
        """Keep that nothing refers to a key."""
        self._connection.execute("INSERT OR IGNORE INTO found VALUES (?)", (key,))

    def not_found(self, keys: Sequence[str]) -> list[str]:
        """Return the keys to which something refers, as far as this collection has seen."""
        return [
            key for key in keys if not self._connection.execute("SELECT 1 FROM found WHERE key = ?", (key,)).fetchone()
        ]


@contextmanager
def open_ledger(folder: Path) -> Iterator[CollectionLedger]:
    """Give an empty ledger in a file of a folder; it is closed at the end of the `with` block.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        # gRPC answers a stream from one thread after another.
        connection = sqlite3.connect(folder / "collection.db", isolation_level=None, check_same_thread=False)
        try:
            yield CollectionLedger(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StorageError(f"The collection cannot keep what it has seen: {error}.") from error
