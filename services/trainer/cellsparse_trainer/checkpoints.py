"""Checkpoints of a run in the object store: files first, then the pointer that makes them visible."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cellsparse_common import keys
from cellsparse_common.errors import NotFound, StorageError
from cellsparse_common.storage import ObjectStore

LATEST: Final = "LATEST"
BEST: Final = "BEST"
Name = Literal["LATEST", "BEST"]


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """What a pointer says about a checkpoint."""

    step: int
    """Optimizer steps done."""
    score: float | None
    """Validation score, 0 to 1; None if not validated at this step."""
    files: dict[str, str]
    """SHA-256 (hex) by file name."""

    def to_json(self) -> bytes:
        """Return the pointer as it is stored."""
        return json.dumps({"step": self.step, "score": self.score, "files": self.files}, sort_keys=True).encode()


class Checkpoints:
    """Writes and reads one run's checkpoints. One upload goes on at a time, beside the training."""

    def __init__(self, store: ObjectStore, run_id: str, folder: Path) -> None:
        self._store = store
        self._run_id = run_id
        self._folder = folder
        self._upload: threading.Thread | None = None
        self._error: Exception | None = None

    def write(self, step: int, score: float | None, names: set[Name], save: Callable[[Path], None]) -> None:
        """Save a state here and upload it in the background, then move the pointers `names` to it.

        Args:
            step: Optimizer steps done.
            score: Validation score at this step.
            names: LATEST, BEST or both.
            save: Writes the state into an empty folder.

        Raises:
            StorageError: This or the upload before it failed.
        """
        self.wait()
        folder = self._folder / f"{step:09d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        save(folder)
        self._upload = threading.Thread(target=self._send, args=(step, score, names, folder), name="checkpoint-upload")
        self._upload.start()

    def wait(self) -> None:
        """Wait until the running upload is done.

        Raises:
            StorageError: It failed.
        """
        if self._upload is not None:
            self._upload.join()
            self._upload = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def pointer(self, name: Name) -> Pointer | None:
        """Return what LATEST or BEST points to; None if there is none.

        Raises:
            StorageError: The store does not answer, or the pointer is not readable.
        """
        try:
            found = json.loads(self._store.get(keys.checkpoint_pointer(self._run_id, name)))
            return Pointer(step=found["step"], score=found["score"], files=found["files"])
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"The {name} pointer of run {self._run_id} is damaged: {error}.") from error

    def fetch(self, pointer: Pointer) -> Path:
        """Return a local folder with the files of a checkpoint, downloaded unless it is here already.

        Raises:
            StorageError: A file is missing or its content is not what the pointer says.
        """
        folder = self._folder / f"{pointer.step:09d}"
        if _matches(folder, pointer):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in pointer.files:
            self._store.fetch(keys.checkpoint(self._run_id, pointer.step, file), folder / file)
        if not _matches(folder, pointer):
            raise StorageError(f"Checkpoint {pointer.step} of run {self._run_id} is damaged: a file's SHA-256 differs.")
        return folder

    def _send(self, step: int, score: float | None, names: set[Name], folder: Path) -> None:
        try:
            files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
            before: dict[str, Pointer | None] = {LATEST: self.pointer(LATEST), BEST: self.pointer(BEST)}
            for file in files:
                self._store.put(keys.checkpoint(self._run_id, step, file), folder / file)
            pointer = Pointer(step=step, score=score, files=files)
            for name in sorted(names):
                self._store.put(keys.checkpoint_pointer(self._run_id, name), pointer.to_json())
            after = {name: pointer if name in names else before[name] for name in before}
            self._forget(before, after)
        except Exception as error:  # noqa: BLE001 - handed to the training thread by `wait`
            self._error = error

    def _forget(self, before: dict[str, Pointer | None], after: dict[str, Pointer | None]) -> None:
        """Delete checkpoints that no pointer needs any more, in the store and here."""
        kept = {pointer.step for pointer in after.values() if pointer is not None}
        for pointer in before.values():
            if pointer is not None and pointer.step not in kept:
                for file in pointer.files:
                    self._store.delete(keys.checkpoint(self._run_id, pointer.step, file))
        for folder in self._folder.iterdir():
            if folder.is_dir() and int(folder.name) not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _matches(folder: Path, pointer: Pointer) -> bool:
    return all((folder / file).is_file() and _sha256(folder / file) == digest for file, digest in pointer.files.items())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
