"""The newest checkpoint of a run that is training, here or elsewhere, for predictions."""

import functools
import os
import shutil
from pathlib import Path

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import NotFound, StorageError
from cellsparse_common.process_ids import is_alive
from cellsparse_common.storage import ObjectStore, open_store
from cellsparse_trainer.training.checkpoints import LATEST, Checkpoints

_ATTEMPTS = 3


def fetch_newest(folder: Path, run_id: str) -> tuple[Path, int]:
    """Return what `NewestCheckpoint.fetch` does, from the store of the settings. Runs in a process that predicts."""
    return _newest(folder).fetch(run_id)


@functools.cache
def _newest(folder: Path) -> "NewestCheckpoint":
    return NewestCheckpoint(open_store(StoreSettings()), folder)


class NewestCheckpoint:
    """Fetches newest checkpoints; keeps one. Used by one thread of a process that predicts.

    Args:
        store: Holds them.
        folder: Local folder of all such processes of this server. Each has one of its own there, called as its process
            id; all others than those of living processes are removed.
    """

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._folder = folder / str(os.getpid())
        self._folder.mkdir(parents=True, exist_ok=True)
        for other in folder.iterdir():
            if not (other.name.isdecimal() and is_alive(int(other.name))):
                shutil.rmtree(other, ignore_errors=True)

    def fetch(self, run_id: str) -> tuple[Path, int]:
        """Return the local folder of a run's newest checkpoint, and its step. It is there until the next call.

        Raises:
            NotFound: There is none yet.
            StorageError: The store failed.
        """
        checkpoints = Checkpoints(self._store, run_id, self._folder / run_id)
        for remaining in reversed(range(_ATTEMPTS)):
            pointer = checkpoints.pointer(LATEST)
            if pointer is None:
                raise NotFound(f"Run {run_id} has no checkpoint yet; try again in a few seconds.", "model_id")
            try:
                folder = checkpoints.fetch(pointer)
            except (NotFound, StorageError):
                if not remaining:  # else a newer one has replaced it meanwhile
                    raise
                continue
            self._forget(folder)
            return folder, pointer.step
        raise AssertionError("the last attempt returns or raises")

    def _forget(self, kept: Path) -> None:
        """Remove all checkpoints but one."""
        for run in self._folder.iterdir():
            for folder in run.iterdir():
                if folder != kept:
                    shutil.rmtree(folder, ignore_errors=True)
            if run != kept.parent:
                shutil.rmtree(run, ignore_errors=True)
