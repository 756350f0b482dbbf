"""A service as a child process, with a record on disk by which a later orchestrator can adopt it."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from cellsparse_common.files import replace_file

_LOG_LIMIT = 10 * 2**20
# Two readings of one process's start differ only by clock corrections. Another process with the same id differs more.
_SAME_START_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Command:
    """How to start a service."""

    name: str
    module: str
    """Run with `python -m`."""
    python: str = sys.executable
    """The interpreter that runs it."""
    environment: dict[str, str]
    """All variables of the process."""
    home: Path
    """The orchestrator's home folder."""

    @property
    def record_file(self) -> Path:
        """Process id, start time and fingerprint of the service, as JSON."""
        return self.home / "services" / f"{self.name}.json"

    @property
    def address_file(self) -> Path:
        """File in which the service writes its host:port."""
        return self.home / "services" / f"{self.name}.address"

    @property
    def log_file(self) -> Path:
        """File for the service's output."""
        return self.home / "logs" / f"{self.name}.log"

    def fingerprint(self) -> str:
        """Return a digest that changes when a running service would need a restart to get its new settings."""
        settings = {
            key: value
            for key, value in self.environment.items()
            if key.startswith("CELLSPARSE_") and not key.endswith("OWNER_PID")
        }
        return hashlib.sha256(json.dumps([self.python, self.module, settings], sort_keys=True).encode()).hexdigest()


class Child:
    """A running service process."""

    def __init__(self, process: psutil.Process, popen: subprocess.Popen[bytes] | None = None) -> None:
        self._process = process
        self._popen = popen
        self.pid = process.pid

    def alive(self) -> bool:
        """Return whether the process still runs."""
        if self._popen is not None:
            return self._popen.poll() is None
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def how_it_ended(self) -> str:
        """Return how a process that is gone has ended, to follow its name in a sentence."""
        code = self._popen.poll() if self._popen is not None else None
        if code is None:
            return "is gone"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def end(self, seconds: float) -> None:
        """Wait for the process to end; after `seconds` kill it with everything it started."""
        try:
            self._process.wait(timeout=max(seconds, 0.0)) if self._popen is None else self._popen.wait(
                max(seconds, 0.0)
            )
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            self._signal(signal.SIGKILL)
            if self._popen is not None:
                self._popen.wait(5.0)

    def _signal(self, number: signal.Signals) -> None:
        if not self.alive():
            return
        try:
            # The service leads its own process group, so SIGKILL reaches a training process as well.
            if number == signal.SIGKILL:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass


def start(command: Command) -> Child:
    """Start a service and write its record.

    Raises:
        OSError: The process cannot be started.
        StorageError: The record cannot be written.
    """
    for folder in (command.record_file.parent, command.log_file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for stale in (command.record_file, command.address_file):
        stale.unlink(missing_ok=True)
    trim_log(command.log_file)
    with command.log_file.open("ab") as log:
        popen = subprocess.Popen(
            [command.python, "-m", command.module],
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process = psutil.Process(popen.pid)
    record = {"pid": popen.pid, "created": process.create_time(), "fingerprint": command.fingerprint()}
    replace_file(command.record_file, json.dumps(record))
    return Child(process, popen)


def trim_log(log: Path) -> None:
    """Move the text of a log that has grown too long to `<name>.log.1`, in place of the older one there.

    The service holds the file open to append to it, so the file stays and is emptied. What cannot be moved, as on a
    full disk, is dropped: a log must not be what fills the disk.
    """
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LOG_LIMIT:
            with contextlib.suppress(OSError):
                shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


def adopt(command: Command, stop_seconds: float) -> Child | None:
    """Return the service that an earlier orchestrator started, if it still runs with the same settings.

    One that runs with other settings is ended first.

    Args:
        command: How we would start the service.
        stop_seconds: How long a service with other settings may take to end.
    """
    try:
        record = json.loads(command.record_file.read_text())
        process = psutil.Process(int(record["pid"]))
        if abs(process.create_time() - float(record["created"])) > _SAME_START_SECONDS:
            return None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    child = Child(process)
    if not child.alive():
        return None
    if record.get("fingerprint") == command.fingerprint():
        return child
    child.ask_to_end()
    child.end(stop_seconds)
    return None
