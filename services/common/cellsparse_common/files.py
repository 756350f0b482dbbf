"""Write files so that they appear whole or not at all, and hash them."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cellsparse_common.errors import InvalidArgument, StorageError

TEMPORARY = ".cellsparse-"
"""Prefix of the names of unfinished files."""


@contextmanager
def disk_errors(action: str) -> Iterator[None]:
    """Turn an OSError into one sentence.

    Args:
        action: What was tried, after "Cannot".

    Raises:
        StorageError: "Cannot <action>: <the system's reason>."
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"Cannot {action}: {error.strerror or error}.") from error


@contextmanager
def unfinished(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield a new file, open for writing. Remove it on the way out unless it was moved away.

    The process' umask decides who may read the file, as with any other file.

    Args:
        folder: An existing folder on the file system where the finished file goes.

    Raises:
        OSError: As the file system says.
    """
    path = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        with path.open("x+b") as file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def settle(file: BinaryIO) -> None:
    """Make what was written survive a power loss, before a rename makes it visible."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; it becomes `target` if the block ends well, and leaves no trace if it does not.

    Raises:
        StorageError: The file cannot be written.
    """
    with disk_errors(f"write {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(target.parent) as (file, path):
            yield file
            file.flush()
            path.replace(target)


def replace_file(target: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text is written as UTF-8.

    Raises:
        StorageError: The file cannot be written.
    """
    with replacing(target) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 lower-case hex digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_source(path: Path) -> BinaryIO:
    """Open the file that `ObjectStore.put` was given.

    Raises:
        InvalidArgument: It is missing or not readable.
    """
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        raise InvalidArgument(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
