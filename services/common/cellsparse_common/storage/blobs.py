"""Blobs: objects that are named by the SHA-256 of their bytes, so that every reader can tell whether they are whole."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellsparse_common.errors import Damaged, NotFound, StorageError
from cellsparse_common.storage import keys
from cellsparse_common.storage.protocol import ObjectStore

_REMEDY = "upload the same image or labels again to mend it"


class BlobCheck:
    """Hashes the bytes of an object as a store reads them; of an object that is no blob, nothing.

    Args:
        key: The object.
    """

    def __init__(self, key: str) -> None:
        self._sha256 = keys.blob_sha256(key)
        self._digest = hashlib.sha256()

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._sha256:
            self._digest.update(data)

    def finish(self) -> None:
        """Take the end of the object.

        Raises:
            Damaged: It is a blob, and its bytes are not those that it is named after.
        """
        found = self._digest.hexdigest()
        if self._sha256 and found != self._sha256:
            raise Damaged(f"Blob {self._sha256} is rotten in the store, it now has hash {found}: {_REMEDY}.")


def check_blob(key: str, data: bytes) -> None:
    """Raise Damaged if an object is a blob and these bytes are not those that it is named after."""
    check = BlobCheck(key)
    check.update(data)
    check.finish()


def keep_blob(store: ObjectStore, sha256: str, data: bytes | Path) -> None:
    """Store bytes under their hash. What is stored already is read: whole, it stays; rotten, it is replaced.

    Args:
        store: Where.
        sha256: The hash of `data`.
        data: The bytes, or a file with them.

    Raises:
        StorageError: The store failed.
    """
    if not is_whole(store, sha256):
        store.put(keys.blob(sha256), data)


def is_whole(store: ObjectStore, sha256: str) -> bool:
    """Tell whether a blob is there and can be read with all its bytes."""
    try:
        for _ in store.read(keys.blob(sha256)):
            pass
    except (NotFound, StorageError):
        return False
    return True


def read_blob(store: ObjectStore, sha256: str) -> bytes:
    """Return the bytes of a blob that something refers to.

    Raises:
        Damaged: It is missing or rotten.
        StorageError: The store failed.
    """
    with _known(sha256):
        return store.get(keys.blob(sha256))


def blob_size(store: ObjectStore, sha256: str) -> int:
    """Return the size in bytes of a blob that something refers to; raises as `read_blob`."""
    with _known(sha256):
        return store.size(keys.blob(sha256))


@contextmanager
def _known(sha256: str) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        raise Damaged(f"Blob {sha256} is missing from the store: {_REMEDY}.") from error
