"""Folders and files that are written to: looked at before any work is done."""

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
