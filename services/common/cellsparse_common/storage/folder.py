"""Objects as files in a folder: the embedded store."""

import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellsparse_common.errors import FailedPrecondition, NotFound, StorageError
from cellsparse_common.files import disk_errors, open_source, replacing, settle, unfinished
from cellsparse_common.storage.blobs import BlobCheck, check_blob
from cellsparse_common.storage.keys import check_key, check_prefix, is_key

UNFINISHED = ".unfinished"
"""Folder for files being written; hidden, so no key can name it."""

ABANDONED_SECONDS = 24 * 3600
MKDIR_ATTEMPTS = 20
PART_BYTES = 2**20


class FolderStore:
    """An `ObjectStore` in a folder, which is made by the first write.

    A folder that was there before and is missing now, as that of a disk that is not mounted, is a failure of the store:
    nothing is "not found" in it, and no write makes it anew. `expect` says so to a process that has not seen it yet.

    Processes on one machine share it safely: an object is written to a hidden folder first and renamed into place.
    Symbolic links below the folder are never followed, so that no key leads out of it. Messages do not name the folder:
    clients read them.

    Args:
        root: Absolute path.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._swept = False
        self._seen = False

    @property
    def url(self) -> str:
        """See `ObjectStore.url`."""
        return self._root.as_uri()

    def put(self, key: str, data: bytes | Path) -> None:
        """See `ObjectStore.put`."""
        target = self._path(key)
        self._stay_there()
        with disk_errors(f"write {key} to the store"), unfinished(self._unfinished_folder()) as (file, path):
            if isinstance(data, bytes):
                file.write(data)
            else:
                with open_source(data) as source:
                    shutil.copyfileobj(source, file, 2**20)
            # The file's bytes must be on disk before its name is; the order of renames is the journal's business.
            settle(file)
            _move(path, target, self._root)

    def check(self) -> None:
        """See `ObjectStore.check`."""
        if self._seen or self._root.is_dir():
            self._stay_there()
        with disk_errors("use the store"):
            there = next(folder for folder in (self._root, *self._root.parents) if folder.exists())
            read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        if read_only:
            raise StorageError("The store is mounted read-only.")
        if not there.is_dir():
            raise FailedPrecondition("The folder of the store cannot be made: what is to hold it is not a folder.")
        if not os.access(there, os.W_OK | os.X_OK):
            raise FailedPrecondition("The store cannot be used: its folder may not be written.")

    def expect(self) -> None:
        """See `ObjectStore.expect`."""
        self._seen = True

    def get(self, key: str) -> bytes:
        """See `ObjectStore.get`."""
        path = self._path(key)
        with self._reading(key):
            data = path.read_bytes()
        check_blob(key, data)
        return data

    def fetch(self, key: str, target: Path) -> None:
        """See `ObjectStore.fetch`."""
        parts = self.read(key)
        first = next(parts, b"")  # an object that is missing leaves no folder behind
        with replacing(target) as file:
            file.write(first)
            for part in parts:
                file.write(part)

    def read(self, key: str) -> Iterator[bytes]:
        """See `ObjectStore.read`."""
        path, check = self._path(key), BlobCheck(key)
        with self._reading(key):
            source = path.open("rb")
        with source:
            while True:
                with self._reading(key):
                    part = source.read(PART_BYTES)
                if not part:
                    break
                check.update(part)
                yield part
        check.finish()

    def exists(self, key: str) -> bool:
        """See `ObjectStore.exists`."""
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def size(self, key: str) -> int:
        """See `ObjectStore.size`."""
        path = self._path(key)
        with self._reading(key):
            if path.is_dir():
                raise IsADirectoryError
            return path.stat().st_size

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.list`."""
        folder = check_prefix(prefix).rpartition("/")[0]
        if folder:
            self._path(folder)
        return self._listing(folder, prefix)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        path = self._path(key)
        self._stay_there()
        with disk_errors(f"delete {key} from the store"):
            if path.is_dir():
                return
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
        _prune(path.parent, self._root)

    def _path(self, key: str) -> Path:
        """Return the file of a key, having seen that no symbolic link leads elsewhere."""
        path = self._root / check_key(key)
        with disk_errors("read the store"):
            if os.path.realpath(path) != os.path.join(os.path.realpath(self._root), key):  # noqa: PTH118
                raise StorageError(f"{key} in the store lies behind a symbolic link; the store follows none.")
        return path

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            with disk_errors(f"read {key} from the store"):
                yield
            self._seen = True
        except StorageError as error:
            if isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
                self._stay_there()
                raise NotFound(f"There is no object {key} in the store.") from None
            raise

    def _listing(self, folder: str, prefix: str) -> Iterator[str]:
        self._stay_there()
        with disk_errors("list the store"):
            yield from _walk(self._root, folder, prefix)

    def _stay_there(self) -> None:
        """Raise StorageError if the folder is missing although it has been there before."""
        with disk_errors("use the store"):
            try:
                is_folder = stat.S_ISDIR(self._root.stat().st_mode)
            except FileNotFoundError:
                if self._seen:
                    raise StorageError("The folder of the store is missing; is its disk mounted?") from None
                return
        if not is_folder:
            raise StorageError("The store is not a folder.")
        self._seen = True

    def _unfinished_folder(self) -> Path:
        folder = self._root / UNFINISHED
        folder.mkdir(parents=not self._seen, exist_ok=True)
        self._seen = True
        if not self._swept:
            self._swept = True
            _sweep(folder)
        return folder


def _move(path: Path, target: Path, root: Path) -> None:
    """Rename into a folder that a concurrent `delete` may remove at any moment while it is empty."""
    for _ in range(MKDIR_ATTEMPTS):
        try:
            _make_folders(target.parent, root)
            path.replace(target)
        except (FileNotFoundError, FileExistsError):  # the latter if it goes while mkdir looks at what is in its way
            continue
        return
    path.replace(target)


def _make_folders(folder: Path, root: Path) -> None:
    """Make a folder below the root, but not the root: it may just have been unmounted."""
    if folder != root and not folder.is_dir():
        _make_folders(folder.parent, root)
        folder.mkdir(exist_ok=True)


def _prune(folder: Path, root: Path) -> None:
    """Remove empty folders upwards, up to but without the root."""
    while folder != root:
        try:
            folder.rmdir()
        except OSError:  # not empty, or another process was quicker
            return
        folder = folder.parent


def _walk(root: Path, folder: str, prefix: str) -> Iterator[str]:
    """Yield the keys below `root/folder` that begin with `prefix`, in the order of their bytes.

    A folder sorts as if its name ended with "/": ``a-b`` before ``a/c`` before ``a0``.
    """
    try:
        with os.scandir(root / folder) as entries:
            names = sorted(
                entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        key = f"{folder}/{name}" if folder else name
        if not is_key(key.removesuffix("/")):
            continue
        if not name.endswith("/"):
            if key.startswith(prefix):
                yield key
        elif key.startswith(prefix) or prefix.startswith(key):
            yield from _walk(root, key.removesuffix("/"), prefix)


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed long ago left behind."""
    oldest = time.time() - ABANDONED_SECONDS
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except OSError:  # another process was quicker, or it is not ours
            continue
