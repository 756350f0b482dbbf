"""Targets that take long to make, kept on this machine: members of a study that share labels make them once."""

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellsparse_trainer.config.settings import ProcessSettings

Arrays = dict[str, NDArray[Any]]
_TRIM_EVERY = 32


class Shelf:
    """Arrays by key, in files that several processes read and write.

    It is never needed: what cannot be read is made anew, what cannot be written is not kept.

    Args:
        folder: Where the files are; made if missing.
        most_bytes: Bound of their size; those used least lately are deleted, now and then.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._written = 0

    def get(self, key: str, make: Callable[[], Arrays]) -> Arrays:
        """Return the arrays of a key, from the file if there is one.

        Args:
            key: Says all that the arrays depend on; letters and digits.
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
        with contextlib.suppress(OSError):
            self._write(path, found)
        return found

    def _write(self, path: Path, arrays: Arrays) -> None:
        """Write a file whole or not at all."""
        if self._written % _TRIM_EVERY == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._trim()
        self._written += 1
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".new", delete=False) as file:
            new = Path(file.name)
            try:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                new.replace(path)
            except BaseException:
                new.unlink(missing_ok=True)
                raise

    def _trim(self) -> None:
        found = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        excess = sum(size for _, size, _ in found) - self._most_bytes
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size


def find_shelf() -> Shelf | None:
    """Return the shelf that this process' environment names; None without one."""
    settings = ProcessSettings()
    return Shelf(settings.target_dir, settings.target_mib * 2**20) if settings.target_dir is not None else None
