"""Expensive targets, kept on this machine's disk: members of a study that share labels compute them once.

diskcache could serve. It is little maintained and stores pickles, which run code when a damaged or forged file is read;
NumPy's own files do not.
"""

import contextlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellsparse_common.errors import StorageError
from cellsparse_common.files import replacing
from cellsparse_trainer.config.settings import ProcessSettings

Arrays = dict[str, NDArray[Any]]
_TRIM_EVERY = 32


class DiskCache:
    """Arrays by key, in files that several processes read and write.

    No training depends on it: arrays that cannot be read are made again, arrays that cannot be written are not kept.

    Args:
        folder: Folder of the files; made if missing.
        max_bytes: Bound on their total size. Every few writes, the least recently used files beyond it are deleted.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._written = 0

    def get(self, key: str, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of a key, from the file if there is one.

        Args:
            key: Names everything that the arrays depend on; letters and digits.
            make: Makes the same arrays every time.
        """
        path = self._folder / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            os.utime(path)
            return found
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            found = make()
        with contextlib.suppress(OSError, StorageError):
            self._write(path, found)
        return found

    def _write(self, path: Path, arrays: Arrays) -> None:
        if self._written % _TRIM_EVERY == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._trim()
        self._written += 1
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, **arrays)

    def _trim(self) -> None:
        found = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process deleted it
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        excess = sum(size for _, size, _ in found) - self._max_bytes
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size


def find_disk_cache() -> DiskCache | None:
    """Return the cache in the folder that CELLSPARSE_TARGET_DIR names; None without one."""
    settings = ProcessSettings()
    return None if settings.target_dir is None else DiskCache(settings.target_dir, settings.target_mib * 2**20)
