"""What a scrub has seen, in a file, so that memory does not grow with the number of blobs."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cellsparse_common.errors import StorageError

MOST_USERS = 5
_TABLES = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
CREATE TABLE blobs (
    sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL DEFAULT 0, fault TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE users (sha256 TEXT, user TEXT, PRIMARY KEY (sha256, user)) WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A blob that is at fault, or that nothing refers to."""

    sha256: str
    size: int = 0
    fault: str = ""
    """Why it cannot be used."""


class ScrubLedger:
    """Blobs of the store, and what refers to them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.executescript(_TABLES)

    def add(self, sha256: str) -> None:
        """Keep that the store lists a blob."""
        self._connection.execute("INSERT OR IGNORE INTO blobs (sha256) VALUES (?)", (sha256,))

    def count(self) -> int:
        """Return the number of blobs."""
        return int(self._connection.execute("SELECT count(*) FROM blobs").fetchone()[0])

    def listed(self) -> Iterator[str]:
        """Yield all blobs in ascending order; each may be changed meanwhile."""
        last = ""
        while True:
            query = "SELECT sha256 FROM blobs WHERE sha256 > ? ORDER BY sha256 LIMIT 1000"
            rows = self._connection.execute(query, (last,)).fetchall()
            if not rows:
                return
            yield from (sha256 for (sha256,) in rows)
            last = rows[-1][0]

    def keep_size(self, sha256: str, size: int, fault: str) -> None:
        """Keep how many bytes of a blob were read, and what is wrong with them."""
        self._connection.execute("UPDATE blobs SET size = ?, fault = ? WHERE sha256 = ?", (size, fault, sha256))

    def forget(self, sha256: str) -> None:
        """Forget a blob that has gone meanwhile."""
        self._connection.execute("DELETE FROM blobs WHERE sha256 = ?", (sha256,))

    def refer(self, sha256: str, user: str) -> None:
        """Keep that something refers to a blob."""
        self._connection.execute("INSERT OR IGNORE INTO users VALUES (?, ?)", (sha256, user))

    def users(self, sha256: str) -> tuple[list[str], int]:
        """Return the first few that refer to a blob, and how many do."""
        query = "SELECT user FROM users WHERE sha256 = ? ORDER BY user LIMIT ?"
        found = [user for (user,) in self._connection.execute(query, (sha256, MOST_USERS))]
        (total,) = self._connection.execute("SELECT count(*) FROM users WHERE sha256 = ?", (sha256,)).fetchone()
        return found, total

    def rotten(self) -> Iterator[Entry]:
        """Yield the blobs with a fault."""
        for sha256, size, fault in self._connection.execute("SELECT * FROM blobs WHERE fault != '' ORDER BY sha256"):
            yield Entry(sha256=sha256, size=size, fault=fault)

    def missing(self) -> Iterator[Entry]:
        """Yield what is referred to and not listed."""
        query = "SELECT DISTINCT sha256 FROM users WHERE sha256 NOT IN (SELECT sha256 FROM blobs) ORDER BY sha256"
        for (sha256,) in self._connection.execute(query):
            yield Entry(sha256=sha256)

    def unreferenced(self) -> Iterator[Entry]:
        """Yield what is listed, good, and not referred to."""
        query = (
            "SELECT sha256, size FROM blobs WHERE fault = '' AND sha256 NOT IN (SELECT sha256 FROM users) "
            "ORDER BY sha256"
        )
        for sha256, size in self._connection.execute(query):
            yield Entry(sha256=sha256, size=size)


@contextmanager
def open_ledger(folder: Path) -> Iterator[ScrubLedger]:
    """Give an empty ledger in a file of a folder; it is closed at the end of the `with` block.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        # gRPC answers a stream from one thread after another.
        connection = sqlite3.connect(folder / "scrub.db", isolation_level=None, check_same_thread=False)
        try:
            yield ScrubLedger(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StorageError(f"The scrub cannot keep what it has seen: {error}.") from error
