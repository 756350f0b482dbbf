"""The content of a large file as bytes that are not in memory: only what is looked at is read."""

import io
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from cellsparse_common.config.limits import MAPPED_BYTES

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LET_GO = 2**22
_SMALL = 2**20


class MappedFile(mmap.mmap):
    """A file that has slices, a length and a buffer, as bytes have.

    Attributes:
        file: The file itself, open for as long as this is there, so that another process can map it, too.
    """

    file: BinaryIO

    def startswith(self, prefix: bytes | tuple[bytes, ...]) -> bool:
        """Tell whether the file begins with these bytes, or any of several."""
        return self[:64].startswith(prefix)

    def let_go(self) -> None:
        """Let go of the memory of what was read."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.madvise(mmap.MADV_DONTNEED)


class ContentReader(io.RawIOBase):
    """Reads a content in order, a large file without its being in memory. Like BytesIO, it has no name."""

    def __init__(self, data: bytes) -> None:
        self.on_read: Callable[[], None] = lambda: None
        """Called after every few MiB that were read."""
        self._data, self._at, self._read = data, 0, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fill a buffer, as far as the file goes."""
        target = memoryview(buffer).cast("B")
        done = 0
        while done < len(target):
            part = self._data[self._at : self._at + min(len(target) - done, _LET_GO)]
            if not part:
                break
            target[done : done + len(part)] = part
            done += len(part)
            self._at += len(part)
            self._read += len(part)
            if self._read >= _LET_GO:
                if isinstance(self._data, MappedFile):
                    self._data.let_go()
                self.on_read()
                self._read = 0
        return done


def read_content(path: Path) -> bytes:
    """Return a file's content; of a large TIFF file, one that is read where it is looked at.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size < MAPPED_BYTES or file.read(4) not in _TIFF:
            file.seek(0)
            return file.read()
        return map_content(os.dup(file.fileno()))


def map_content(descriptor: int) -> bytes:
    """Return the content of an open file as bytes that are not in memory; the descriptor is closed with them."""
    mapped = MappedFile(descriptor, 0, access=mmap.ACCESS_READ)
    mapped.file = os.fdopen(descriptor, "rb")
    return cast(bytes, mapped)  # what reads TIFF files needs no more of bytes than a mapped file has


def open_content(data: bytes) -> "ContentReader | io.BytesIO":
    """Return a content as a file to read from."""
    return io.BytesIO(data) if len(data) < _SMALL else ContentReader(data)
