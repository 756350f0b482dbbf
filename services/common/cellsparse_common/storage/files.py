"""Writing files so that they appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cellsparse_common.errors import InvalidArgument, StorageError

TEMPORARY = ".cellsparse-"
"""How names of unfinished files begin."""


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
    """Yield a new file, open for writing; removed on the way out unless it was moved away.

    Args:
        folder: An existing folder on the file system where the finished file goes.

    Raises:
        OSError: As the file system says.
    """
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    path = Path(name)
    try:
        path.chmod(0o644)  # mkstemp's own 0600 would hide a finished file from its owner's colleagues
        with os.fdopen(descriptor, "w+b") as file:
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


def open_source(path: Path) -> BinaryIO:
    """Open the file that `ObjectStore.put` was given.

    Raises:
        InvalidArgument: It is missing or not readable.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror or error}.") from error
