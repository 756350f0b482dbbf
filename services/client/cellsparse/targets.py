"""Folders and files that are written to: looked at before any work is done."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cellsparse.errors import AlreadyExists, InvalidArgument


@contextmanager
def file_errors(what: str) -> Iterator[None]:
    """Turn what the file system says about a path into one sentence.

    Args:
        what: What was tried, after which "cannot be" a verb follows: "out cannot be written".

    Raises:
        InvalidArgument: "<what>: <the system's reason>."
    """
    try:
        yield
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        raise InvalidArgument(f"{what}: {getattr(error, 'strerror', None) or error}.") from error


def make_folder(folder: Path) -> None:
    """Make a folder that results go to, unless it is there.

    Raises:
        InvalidArgument: It cannot be made, or is a file.
    """
    with file_errors(f"{folder} cannot be made a folder"):
        folder.mkdir(parents=True, exist_ok=True)


def check_folder(folder: Path) -> None:
    """Find out, without making it, whether a folder may be one that results go to.

    Raises:
        InvalidArgument: A file is in its way, or it may not be written.
    """
    with file_errors(f"{folder} cannot be made a folder"):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{there} may not be written")


def make_home(home: Path) -> None:
    """Make the home folder of local services, unless it is there.

    Raises:
        InvalidArgument: It cannot be made, or is a file.
    """
    try:
        make_folder(home)
    except InvalidArgument as error:
        raise InvalidArgument(f"{error.message} CELLSPARSE_HOME names another home.") from error


def opened(path: Path) -> IO[bytes]:
    """Open a file to write at its end.

    Raises:
        InvalidArgument: It cannot be opened.
    """
    with file_errors(f"{path} cannot be written"):
        return path.open("ab")


def check_target(target: Path, force: bool) -> None:
    """Check that a file may be written.

    Raises:
        InvalidArgument: It is a folder, or no file can have that name.
        AlreadyExists: It exists and must not be overwritten.
    """
    with file_errors(f"{target} cannot be written"):
        is_folder, is_file, exists = target.is_dir(), target.is_file(), target.exists()
    if is_folder:
        raise InvalidArgument(f"{target} is a folder; give the name of a file.")
    if exists and not force:
        raise AlreadyExists(f"{target} is there already; --force (force=True) overwrites it.")
    if exists and not is_file:
        raise InvalidArgument(f"{target} is no ordinary file; give another name.")
