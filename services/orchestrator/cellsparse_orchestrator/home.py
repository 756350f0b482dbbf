"""The home folder: a lock for one orchestrator at a time, and what clients on this machine need to call it."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cellsparse_common.errors import FailedPrecondition
from cellsparse_common.files import disk_errors, replace_file

_LOOK_SECONDS = 0.2


@contextmanager
def own_home(home: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the home folder's lock; it is released when the process ends, however it ends.

    Args:
        home: The folder.
        wait_seconds: How long to wait for another orchestrator that holds it, such as one that is ending.

    Raises:
        FailedPrecondition: Another orchestrator holds it.
        StorageError: The folder cannot be made or written.
    """
    with disk_errors(f"use the home folder {home}"):
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "orchestrator.lock").open("a+")
    with lock:
        end = time.monotonic() + wait_seconds
        while not _locked(lock):
            if time.monotonic() >= end:
                raise FailedPrecondition(
                    f"Another orchestrator uses {home}; stop it, or give this one another CELLSPARSE_HOME."
                )
            time.sleep(_LOOK_SECONDS)
        # Left-overs of uploads to an orchestrator that was killed.
        shutil.rmtree(spool_folder(home), ignore_errors=True)
        try:
            yield
        finally:
            record_file(home).unlink(missing_ok=True)


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def record_file(home: Path) -> Path:
    """Return the file with the orchestrator's address for clients."""
    return home / "orchestrator.json"


def spool_folder(home: Path) -> Path:
    """Return the folder for incomplete uploads."""
    return home / "uploads"


def incoming_folder(home: Path) -> Path:
    """Return the folder for files of which a part has come; unlike the spool it outlives the process."""
    return home / "incoming"


def tell_clients(home: Path, address: str) -> None:
    """Write the address (host:port) and process id for clients on this machine."""
    replace_file(record_file(home), json.dumps({"address": address, "pid": os.getpid()}))


def home_token(home: Path, make: Callable[[], str]) -> str:
    """Return the administrator's token in the home folder, where `cellsparse` finds it; it is made if it is not there.

    Args:
        home: The home folder.
        make: Returns a fresh token.

    Raises:
        StorageError: The file cannot be read or written.
    """
    path = home / "admin-token"
    with disk_errors(f"use {path}"):
        if not path.exists() or not path.read_text().strip():
            new = path.with_name(f".{path.name}.new")
            new.unlink(missing_ok=True)  # of one that was killed here
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{make()}\n")
            new.replace(path)
        return path.read_text().strip()
