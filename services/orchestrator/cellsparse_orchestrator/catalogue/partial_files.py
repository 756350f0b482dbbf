"""Files of which a part has come, on this machine's disk. They outlive the process, so that uploads can go on."""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from cellsparse_common.errors import Aborted, InvalidArgument, OutOfRange
from cellsparse_common.files import disk_errors

_PART_BYTES = 2**20
_NOBODY = "_"
"""Name of the folder of files that belong to no project; no id begins like this."""


class PartialFile:
    """A file that is being received, by one call at a time.

    Args:
        path: Where.
        offset: Bytes that are there.
        size: Bytes of the whole file.
    """

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self.path = path
        self.received = offset
        self.size = size
        self._lock = threading.Lock()
        self._lost = False
        self._digest = hashlib.sha256()
        if offset:
            with path.open("rb") as file:
                while part := file.read(_PART_BYTES):
                    self._digest.update(part)
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            Aborted: Another call has taken over.
            InvalidArgument: They are more than the file has.
            StorageError: The disk failed.
        """
        if self.received + len(data) > self.size:
            raise InvalidArgument(f"More than the {self.size} bytes came that were announced for a file.", "chunk")
        with self._lock, disk_errors("write an upload"):
            if self._lost:
                raise Aborted("Another call sends the same file; ask how far it has come.")
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            self._digest.update(data)
            self.received += len(data)

    def sha256(self) -> str:
        """Return the SHA-256 of what has come."""
        return self._digest.hexdigest()

    def give_up(self) -> None:
        """Let another call go on with the file."""
        with self._lock:
            self._lost = True
            self._file.close()


class PartialFiles:
    """All files of which a part has come.

    Args:
        folder: Where; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open: dict[Path, PartialFile] = {}

    def offset(self, project_id: str, sha256: str) -> int:
        """Return how many bytes of a file have come."""
        try:
            return self._path(project_id, sha256).stat().st_size
        except OSError:
            return 0

    def go_on(self, project_id: str, sha256: str, offset: int, size: int) -> PartialFile:
        """Return a file to be received; from now on no other call can write it.

        Args:
            project_id: Whose it is; empty: nobody's.
            sha256: Its hash.
            offset: Bytes that the caller takes to be there.
            size: Bytes of the whole file.

        Raises:
            OutOfRange: Other bytes are missing.
            StorageError: The disk failed.
        """
        path = self._path(project_id, sha256)
        with self._lock, disk_errors("write an upload"):
            if path in self._open:
                self._open.pop(path).give_up()
            path.parent.mkdir(parents=True, exist_ok=True)
            there = self.offset(project_id, sha256)
            if there > size:  # its size was announced wrongly before
                path.unlink()
                there = 0
            if offset != there:
                raise OutOfRange(
                    f"The chunks of file {sha256} begin at {offset}, but {there} bytes are there: go on at {there}.",
                    "file.offset",
                )
            self._open[path] = partial = PartialFile(path, there, size)
        return partial

    def leave(self, partial: PartialFile) -> None:
        """Close a file; what has come stays."""
        with self._lock:
            if self._open.get(partial.path) is partial:
                del self._open[partial.path]
        partial.give_up()

    def remove(self, project_id: str, sha256: str) -> None:
        """Remove what has come of a file."""
        with disk_errors("remove an upload"):
            self._path(project_id, sha256).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Return how many bytes the disk has left."""
        with disk_errors("look at the disk of uploads"):
            self._folder.mkdir(parents=True, exist_ok=True)
            return shutil.disk_usage(self._folder).free

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield project id and hash of all files of which a part has come."""
        for path in self._folder.glob("*/*"):
            project_id = path.parent.name
            yield "" if project_id == _NOBODY else project_id, path.name

    def _path(self, project_id: str, sha256: str) -> Path:
        return self._folder / (project_id or _NOBODY) / sha256
