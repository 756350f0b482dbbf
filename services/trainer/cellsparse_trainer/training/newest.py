"""The newest checkpoint of a run that is training, here or elsewhere, for predictions."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellsparse_common.errors import DeadlineExceeded, NotFound, StorageError
from cellsparse_common.storage import ObjectStore
from cellsparse_trainer.training.checkpoints import LATEST, Checkpoints

_ATTEMPTS = 3


class NewestCheckpoint:
    """Fetches newest checkpoints; keeps one.

    Args:
        store: Holds them.
        folder: Local folder of this object alone.
    """

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._lock = threading.Lock()

    @contextmanager
    def fetch(self, run_id: str, seconds: float) -> Iterator[tuple[Path, int]]:
        """Give the local folder of a run's newest checkpoint, and its step, within the `with` block.

        Raises:
            NotFound: There is none yet.
            StorageError: The store failed.
            DeadlineExceeded: Other predictions with checkpoints took longer than some seconds.
        """
        if not self._lock.acquire(timeout=max(seconds, 0)):
            raise DeadlineExceeded(f"No free turn for the prediction within {seconds:.0f} s.")
        try:
            yield self._fetch(run_id)
        finally:
            self._lock.release()

    def _fetch(self, run_id: str) -> tuple[Path, int]:
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
