"""Files that are sent: read in parts, with errors in words."""

import stat
from collections.abc import Iterator
from pathlib import Path

from cellsparse.errors import InvalidArgument

CHUNK_BYTES = 2**20


def is_folder(path: Path) -> bool:
    """Return whether there is a folder; a path that the system does not take is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def file_size(path: str | Path) -> int:
    """Return a file's size in bytes; 0 for one that cannot be read."""
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        return 0


def parts_of(data: bytes, offset: int = 0) -> Iterator[bytes]:
    """Yield a content in parts of at most one MiB, from some byte on."""
    for start in range(offset, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def read_all(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        InvalidArgument: As for `read_parts`.
    """
    return b"".join(read_parts(path))


def read_parts(path: str | Path, offset: int = 0) -> Iterator[bytes]:
    """Yield a file's content in parts of at most one MiB, from some byte on.

    Raises:
        InvalidArgument: It cannot be read, or is a folder, or a device or a pipe, which may have no end.
    """
    try:
        refuse_endless(Path(path))
        with Path(path).open("rb") as file:
            if offset:
                file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        raise InvalidArgument(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def refuse_endless(path: Path) -> None:
    """Refuse what may have no end, before it is opened: a pipe that nobody writes to would block.

    Pipes of a shell (`<(command)`, `/dev/stdin`) are read.

    Raises:
        InvalidArgument: It is a device or another pipe.
        OSError: It is not there.
    """
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise InvalidArgument(f"{path} cannot be read: it is a device, not a file.")
    if stat.S_ISFIFO(mode) and path.parts[:2] not in (("/", "dev"), ("/", "proc")):
        raise InvalidArgument(f"{path} cannot be read: it is a pipe, not a file.")
