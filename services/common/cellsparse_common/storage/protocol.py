"""The interface of object stores.

fsspec, obstore and opendal offer such an interface for many more stores. Ten methods over two stores are less to
depend on, and the promises below are checked by a contract test.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class ObjectStore(Protocol):
    """Keys to bytes, and nothing else.

    Why so little: everything above (datasets, checkpoints, models) is built from whole objects that appear at once,
    which is what a plain folder, MinIO and every S3 can promise alike. There is no append, no rename, no lock and no
    metadata, because some store would lack it. Whoever writes several objects that belong together writes a small one
    last that names the others; readers start from that one.

    The promises, kept by every implementation and checked by one suite of tests:

    - `put` replaces atomically: readers see the old object or the new one, never a part; a writer killed in the middle
      leaves nothing to be seen. Of writers to one key at the same time, one wins.
    - After `put` or `delete` returns, every reader sees its effect.
    - Keys follow `cellsparse_common.storage.keys.check_key`. No key is also a folder of another one: beside ``a/b``
      there is no ``a`` (a folder store cannot hold both).
    - Whoever reads a blob (`cellsparse_common.storage.keys.blob`) gets the bytes that it is named after, or `Damaged`.
    - A store is safe to share between threads. It opens nothing until it is used.

    All methods raise `InvalidArgument` for a key or prefix that breaks the rules, and `StorageError` with one sentence
    when the store fails: disk full, no permission, endpoint not reachable, no such bucket.
    """

    @property
    def url(self) -> str:
        """URL of the store, without secrets; opens the same store again."""
        ...

    def check(self) -> None:
        """Find out, without writing, whether objects could be kept here.

        Raises:
            FailedPrecondition: There is no such bucket, or the folder cannot be.
            StorageError: The store does not answer.
        """
        ...

    def expect(self) -> None:
        """Say that there are objects here: from now on a store that seems never to have been used has failed.

        Without it a process that has just started takes a missing folder for a new store.
        """
        ...

    def put(self, key: str, data: bytes | Path) -> None:
        """Write an object, or replace it.

        Args:
            key: Where.
            data: Its bytes, or a file to read them from without holding them in memory.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return an object's bytes.

        Raises:
            NotFound: There is no such object.
        """
        ...

    def fetch(self, key: str, target: Path) -> None:
        """Copy an object to a file without holding it in memory; the file appears complete or not at all.

        Args:
            key: Which object.
            target: The file; missing parent folders are made, an existing file is replaced.

        Raises:
            NotFound: There is no such object.
        """
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in parts of at most 1 MiB, so that it is never whole in memory.

        A blob's last part may come before `Damaged` is raised: what was yielded counts only if the iterator ends well.

        Raises:
            NotFound: There is no such object.
        """
        ...

    def exists(self, key: str) -> bool:
        """Tell whether there is such an object."""
        ...

    def size(self, key: str) -> int:
        """Return an object's size in bytes.

        Raises:
            NotFound: There is no such object.
        """
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with a string, in ascending order, as they are read.

        The prefix is plain text: ``runs/a`` also begins ``runs/ab/spec.json``; end it with "/" to mean a folder. Memory
        does not grow with the number of keys (a folder store holds the names of one folder at a time).
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; no error if there is none."""
        ...


@dataclass(frozen=True, kw_only=True)
class MissingParts:
    """What has not come of an object that is sent in parts."""

    part_bytes: int
    """Length of each part but the last one."""
    received: int
    """Bytes of the parts that have come."""
    urls: dict[int, str]
    """By number, from 1: where the first missing parts are sent by one HTTP PUT each; empty: all have come."""


@dataclass(frozen=True, kw_only=True)
class CheckedUrl:
    """Where a client sends a blob that the store checks."""

    url: str
    headers: dict[str, str]
    """Headers that its PUT must have."""


class DirectUploads(Protocol):
    """What a store can do besides, if clients can send files straight to it."""

    def checked_url(self, sha256: str, sender: str, seconds: int) -> CheckedUrl | None:
        """Return a URL that takes a blob by one HTTP PUT, and nothing but the bytes with this hash.

        Args:
            sha256: The hash.
            sender: Who sends it: letters, digits and "-".
            seconds: How long it can be used.

        Returns:
            None: this store does not check what comes.

        Raises:
            StorageError: Whether it does cannot be found out now.
        """
        ...

    def has_checked(self, sha256: str, size: int, sender: str) -> bool:
        """Tell whether a blob is there that this sender, and nobody after it, has sent to its checked URL.

        Raises:
            StorageError: The store failed.
        """
        ...

    def upload_url(self, key: str, seconds: int) -> str:
        """Return a URL that takes an object by one HTTP PUT for so many seconds; nothing is contacted."""
        ...

    def missing_parts(self, key: str, size: int, part_bytes: int, seconds: int) -> MissingParts:
        """Begin an object in parts, or go on with it, and return the first parts that have not come.

        Args:
            key: The object.
            size: Its bytes.
            part_bytes: Length of a part, 5 MiB at least; parts are longer where there would be too many.
            seconds: How long the URLs can be used.

        Raises:
            StorageError: The store failed.
        """
        ...

    def complete_parts(self, key: str, size: int, part_bytes: int) -> None:
        """Make an object of its parts; nothing happens if none was begun.

        Raises:
            FailedPrecondition: A part has not come.
            StorageError: The store failed.
        """
        ...

    def abort_parts(self, key: str) -> None:
        """Remove the parts of an object that have come; raises StorageError."""
        ...

    def adopt(self, key: str, sha256: str, size: int) -> None:
        """Make a blob of an object that was sent to its URL, and remove the object.

        Raises:
            FailedPrecondition: There is no such object, or it changed meanwhile.
            InvalidArgument: It has another size or hash; it is removed.
            StorageError: The store failed.
        """
        ...
