"""Models at hand: downloaded ones in a bounded folder, opened ones in bounded memory; the least recently used go."""

import fcntl
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellsparse_common.errors import Unavailable
from cellsparse_common.storage import ObjectStore
from cellsparse_trainer.models.store import CARD, fetch_model

_TRIES = 3
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class CacheBounds:
    """How many models are kept. The newest one always is."""

    models: int = 200
    """Downloaded models."""
    mib: int = 20_480
    """Their files, MiB."""
    open_models: int = 4
    """Models that one process keeps open."""
    open_mib: int = 1024
    """Files of these, MiB; about the memory that they take."""


@contextmanager
def kept_model(
    store: ObjectStore, model_id: str, cache: Path, bounds: CacheBounds
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a local folder with a model's files, and its card; downloads it unless it is there.

    The folder stays for the `with` block, whatever other processes that share the cache drop.

    Args:
        store: Holds models.
        model_id: The model.
        cache: Folder of downloaded models.
        bounds: What it may hold.

    Raises:
        NotFound: There is no such model.
        StorageError: A file is missing or damaged.
        Unavailable: Others dropped it as often as it was downloaded.
    """
    for _ in range(_TRIES):
        folder, card = fetch_model(store, model_id, cache)
        try:
            used = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # dropped in this moment
        try:
            fcntl.flock(used, fcntl.LOCK_SH)
            if not (folder / CARD).is_file():
                continue
            os.utime(folder)
            _drop_oldest(cache, bounds)
            yield folder, card
            return
        finally:
            os.close(used)
    raise Unavailable(f"Model {model_id} was dropped from the cache as often as it was downloaded; try again.")


def cached_models(cache: Path) -> list[tuple[Path, int]]:
    """Return the folders of all downloaded models and the bytes of their files, the most recently used first."""
    found = []
    for folder in cache.glob("[!.]*") if cache.is_dir() else ():
        try:
            files = [path.stat() for path in (folder, *folder.rglob("*"))]
        except FileNotFoundError:
            continue  # dropped in this moment
        found.append((files[0].st_mtime_ns, folder, sum(file.st_size for file in files[1:])))
    return [(folder, size) for _, folder, size in sorted(found, reverse=True)]


def remove_leftovers(cache: Path) -> None:
    """Remove what processes that were killed have left in a cache that nobody uses now."""
    for path in cache.glob(".*") if cache.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)


def _drop_oldest(cache: Path, bounds: CacheBounds) -> None:
    total = 0
    for place, (folder, size) in enumerate(cached_models(cache), start=1):
        total += size
        if place > 1 and (place > bounds.models or total > bounds.mib * _MIB) and _drop(folder):
            total -= size


def _drop(folder: Path) -> bool:
    """Remove a model's folder unless a process uses it; return whether it is gone."""
    try:
        used = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = folder.with_name(f".gone-{os.getpid()}-{folder.name}")
        folder.rename(gone)
    except OSError:
        return False
    finally:
        os.close(used)
    shutil.rmtree(gone, ignore_errors=True)
    return True


class OpenModels:
    """Opened models of one process, used by one thread."""

    def __init__(self) -> None:
        self._open: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, bounds: CacheBounds, open_it: Callable[[], tuple[Any, int]]) -> Any:
        """Return an opened model; the least recently used ones are closed before another one is opened.

        Args:
            key: Tells models apart.
            bounds: How many stay open.
            open_it: Opens it; returns it and the bytes of its files.
        """
        if key not in self._open:
            self._close(bounds.open_models - 1, bounds.open_mib * _MIB)
            opened = open_it()
            self._close(bounds.open_models - 1, bounds.open_mib * _MIB - opened[1])
            self._open[key] = opened
        self._open.move_to_end(key)
        return self._open[key][0]

    def drop(self, like: Callable[[Hashable], bool]) -> None:
        """Close the models whose keys are alike."""
        for key in [key for key in self._open if like(key)]:
            del self._open[key]

    def _close(self, models: int, size: int) -> None:
        while self._open and (len(self._open) > models or sum(each for _, each in self._open.values()) > size):
            self._open.popitem(last=False)
