"""Checkpoints of a run in the object store: files first, then the pointer that makes them visible."""

import contextlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from cellsparse_common.errors import Damaged, FailedPrecondition, NotFound
from cellsparse_common.files import sha256_of
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_trainer.contract import CHECKPOINT_CARD
from cellsparse_trainer.training.resume_guard import renamed

_LOG = logging.getLogger(__name__)
LATEST: Final = "LATEST"
BEST: Final = "BEST"
Name = Literal["LATEST", "BEST"]
ORIGIN = "origin.json"
"""File of a checkpoint that says what was trained on what."""


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """What a pointer says about a checkpoint."""

    step: int
    """Optimizer steps done."""
    score: float | None
    """Validation score, 0 to 1; None if not validated at this step."""
    files: dict[str, str]
    """SHA-256 (hex) by file name."""
    best: float | None = None
    """Highest validation score up to this step; None before the first."""
    stale: int = 0
    """Validations since the highest score, so that early stopping counts on after a break."""
    measure: str = ""
    """Name of the score; empty where an earlier version wrote it, which measured something else."""
    attempt: int = 0
    """Attempt that wrote it; 0 where an earlier version did."""
    fence: int = 0
    """Lease of the orchestrator that started this attempt; 0: it had none."""

    def to_json(self) -> bytes:
        """Return the pointer as it is stored."""
        return json.dumps(asdict(self), sort_keys=True).encode()


@dataclass(frozen=True, kw_only=True)
class _Upload:
    """A checkpoint that is saved here and on its way to the store."""

    pointer: Pointer
    """What the pointers will say, without the files."""
    names: frozenset[Name]
    """The pointers that will move."""
    folder: Path
    """Where it is."""


class Checkpoints:
    """Writes and reads one run's checkpoints. One upload goes on at a time, beside the training."""

    def __init__(
        self,
        store: ObjectStore,
        run_id: str,
        folder: Path,
        origin: Mapping[str, str] | None = None,
        card: Mapping[str, Any] | None = None,
        *,
        keep_bytes: int | None = None,
        writer: tuple[int, int] = (0, 0),
    ) -> None:
        """Names the run.

        Args:
            store: Where checkpoints go.
            run_id: The run.
            folder: Local folder of this attempt alone.
            origin: What is trained on what, by name (see `origin`); it travels in every checkpoint.
            card: How to feed the network; it travels in every checkpoint, so that one can predict.
            keep_bytes: Most bytes of checkpoints that wait here for the store, but for the best one; None: no bound.
            writer: Number of the attempt, and of the lease of the orchestrator that started it. Pointers that a later
                one has written are never replaced.
        """
        self._store = store
        self._origin = dict(origin or {})
        self._card = dict(card or {})
        self._run_id = run_id
        self._folder = folder
        self._keep_bytes = keep_bytes
        self._writer = writer
        self._lock = threading.Lock()
        self._queue: list[_Upload] = []
        self._uploader: threading.Thread | None = None
        self._error: Exception | None = None

    def write(
        self,
        step: int,
        score: float | None,
        names: set[Name],
        save: Callable[[Path], None],
        *,
        best: float | None = None,
        stale: int = 0,
        measure: str = "",
    ) -> None:
        """Save a state here and upload it in the background, then move the pointers `names` to it.

        An upload that is under way is not waited for: the new checkpoint goes after it, in place of a waiting one whose
        pointers it moves as well, so that no more than two wait. One that would only be the newest is left out where
        those that wait take the room that there is.

        Args:
            step: Optimizer steps done.
            score: Validation score at this step.
            names: LATEST, BEST or both.
            save: Writes the state into an empty folder.
            best: Highest validation score so far.
            stale: Validations since then.
            measure: Name of the score.

        Raises:
            StorageError: An upload before it failed.
        """
        with self._lock:
            self._raise_error()
            if names == {LATEST} and self._uploader is not None and not self._has_room():
                _LOG.warning("the checkpoint of step %d is left out: those that wait for the store fill the disk", step)
                return
            folder = self._folder / f"{step:09d}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            save(folder)
            (folder / ORIGIN).write_text(json.dumps(self._origin, sort_keys=True))
            (folder / CHECKPOINT_CARD).write_text(json.dumps(self._card, sort_keys=True))
            pointer = Pointer(step=step, score=score, files={}, best=best, stale=stale, measure=measure)
            for replaced in [one for one in self._queue if one.names <= names]:
                self._queue.remove(replaced)
                shutil.rmtree(replaced.folder, ignore_errors=True)
            self._queue.append(_Upload(pointer=pointer, names=frozenset(names), folder=folder))
            if self._uploader is None:
                self._uploader = threading.Thread(target=self._send_all, name="checkpoint-upload")
                self._uploader.start()

    def wait(self) -> None:
        """Wait until everything is uploaded.

        Raises:
            StorageError: An upload failed.
        """
        with self._lock:
            uploader = self._uploader
        if uploader is not None:
            uploader.join()
        self._raise_error()

    def _has_room(self) -> bool:
        """Whether one more checkpoint may wait here, of the size of the largest."""
        sizes = [_size(folder) for folder in self._folder.iterdir()]
        most = max(sizes, default=0)
        if self._keep_bytes is not None and sum(sizes) + most > self._keep_bytes:
            return False
        return shutil.disk_usage(self._folder).free > 2 * most

    def _raise_error(self) -> None:
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
            return Pointer(**found)
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"The {name} pointer of run {self._run_id} is damaged: {error}.") from error

    def confirm(self) -> dict[str, Pointer | None]:
        """Return both pointers, and make sure that no later attempt has written one.

        Raises:
            FailedPrecondition: One has: this attempt is over.
            StorageError: The store does not answer, or a pointer is not readable.
        """
        found: dict[str, Pointer | None] = {LATEST: self.pointer(LATEST), BEST: self.pointer(BEST)}
        for pointer in found.values():
            if pointer is not None and (pointer.attempt, pointer.fence) > self._writer:
                raise FailedPrecondition(
                    f"Attempt {self._writer[0]} of run {self._run_id} is over: attempt {pointer.attempt} has taken its "
                    "place, and this one writes nothing more."
                )
        return found

    def fetch(self, pointer: Pointer) -> Path:
        """Return a local folder with the files of a checkpoint, downloaded unless it is here already.

        Raises:
            StorageError: A file is missing or its content is not what the pointer says.
            FailedPrecondition: The checkpoint is of a training of something else.
        """
        folder = self._folder / f"{pointer.step:09d}"
        if _matches(folder, pointer):
            return self._checked(folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in pointer.files:
            try:
                self._store.fetch(keys.checkpoint(self._run_id, pointer.step, file), folder / file)
            except NotFound as error:
                raise Damaged(f"Checkpoint {pointer.step} of run {self._run_id} lacks its file {file!r}.") from error
        if not _matches(folder, pointer):
            raise Damaged(f"Checkpoint {pointer.step} of run {self._run_id} is damaged: a file's SHA-256 differs.")
        return self._checked(folder)

    def _checked(self, folder: Path) -> Path:
        found = json.loads((folder / ORIGIN).read_text()) if (folder / ORIGIN).is_file() else {}
        for name in sorted(found.keys() & self._origin.keys()):
            if renamed(found[name]) != self._origin[name]:
                raise FailedPrecondition(
                    f"The checkpoints of run {self._run_id} are of another training: {name} was {found[name]}, now it "
                    f"is {self._origin[name]}; start a new run."
                )
        return folder

    def _send_all(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._uploader = None
                    return
                upload = self._queue.pop(0)
            try:
                self._send(upload)
            except Exception as error:  # noqa: BLE001 - handed to the training thread by `write` and `wait`
                with self._lock:
                    self._error, self._uploader = error, None
                    self._queue.clear()
                return

    def _send(self, upload: _Upload) -> None:
        files = {path.name: sha256_of(path) for path in sorted(upload.folder.iterdir())}
        before = self.confirm()
        attempt, fence = self._writer
        pointer = replace(upload.pointer, files=files, attempt=attempt, fence=fence)
        for file in files:
            self._store.put(keys.checkpoint(self._run_id, pointer.step, file), upload.folder / file)
        self.confirm()
        for name in sorted(upload.names):
            self._store.put(keys.checkpoint_pointer(self._run_id, name), pointer.to_json())
        after = {name: pointer if name in upload.names else before[name] for name in before}
        self._forget(before, after)

    def _forget(self, before: dict[str, Pointer | None], after: dict[str, Pointer | None]) -> None:
        """Delete checkpoints that no pointer needs any more, in the store and here."""
        kept = {pointer.step for pointer in after.values() if pointer is not None}
        for pointer in before.values():
            if pointer is not None and pointer.step not in kept:
                for file in pointer.files:
                    self._store.delete(keys.checkpoint(self._run_id, pointer.step, file))
        with self._lock:  # no state is being saved meanwhile
            kept |= {upload.pointer.step for upload in self._queue}
            for folder in self._folder.iterdir():
                if folder.is_dir() and int(folder.name) not in kept:
                    shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    """Return the bytes of a folder's files; one that is just being deleted has none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _matches(folder: Path, pointer: Pointer) -> bool:
    return all(
        (folder / file).is_file() and sha256_of(folder / file) == digest for file, digest in pointer.files.items()
    )
