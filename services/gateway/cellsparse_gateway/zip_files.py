"""Zip files that users bring: opened and read with errors in words."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.zip_members import ZIP_ERRORS, count_members

CHUNK_BYTES = 2**20
MAX_MEMBERS = 50_000


@contextmanager
def open_zip(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Open a zip file.

    Raises:
        InvalidArgument: It is none, or holds too many files.
    """
    if count_members(file) > MAX_MEMBERS:
        raise InvalidArgument(f"The zip holds more than {MAX_MEMBERS} files, the most allowed.")
    try:
        archive = zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        raise InvalidArgument(f"The body is not a zip file: {error}.") from None
    with archive:
        yield archive


def read_member(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """Yield a member's content in parts of at most one MiB.

    The receiver's limit of a file's size bounds what a small zip may unpack to, as it ends the stream.

    Raises:
        InvalidArgument: It is missing, broken, encrypted, or compressed in an unknown way.
    """
    try:
        with archive.open(name) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except KeyError:
        raise InvalidArgument(f"The zip has no file {name}.") from None
    except ZIP_ERRORS as error:
        raise InvalidArgument(f"{name} in the zip cannot be read: {error}.") from None


def read_small(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Return a member's whole content.

    Raises:
        InvalidArgument: It cannot be read, or is too large.
    """
    data = bytearray()
    for chunk in read_member(archive, name):
        data += chunk
        if len(data) > max_bytes:
            raise InvalidArgument(f"{name} in the zip is larger than {max_bytes} bytes, the most allowed.")
    return bytes(data)
