"""Who holds the lease: a process, so that another one on the same machine can tell whether it has ended."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_INITIAL_PIDS = "pid:[4026531836]"
"""The namespace of process ids outside of all containers; Linux fixes its number."""
_SAME_START_SECONDS = 2.0
"""Two readings of one process's start differ only by clock corrections."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process, and what must be equal for its id to mean anything to another process."""

    host: str
    machine: str
    """Id of the machine's installation; empty if it has none."""
    boot: str
    """Id of the machine's last start; empty if it has none."""
    pids: str
    """Namespace of process ids; empty where there are none."""
    pid: int
    started: float
    """When the process started, seconds since 1970."""

    def to_json(self) -> str:
        """Return the holder as it is stored."""
        return json.dumps(asdict(self), sort_keys=True)

    def __str__(self) -> str:
        """Return the holder as it is named in sentences."""
        return f"process {self.pid} on {self.host}"


def this_process() -> Holder:
    """Return the running process."""
    return Holder(
        host=socket.gethostname(),
        machine=_read("/etc/machine-id"),
        boot=_read("/proc/sys/kernel/random/boot_id"),
        pids=_namespace(),
        pid=os.getpid(),
        started=psutil.Process().create_time(),
    )


def parse_holder(text: str) -> Holder | None:
    """Return a stored holder; None if it is none, or was stored by another version."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


def has_ended(holder: Holder, here: Holder) -> bool:
    """Whether a holder has certainly ended, as seen from the process `here`; False where that cannot be known."""
    if (holder.host, holder.machine, holder.pids) != (here.host, here.machine, here.pids):
        return False
    if holder.boot != here.boot:
        # The machine was started again. Containers on two machines may look the same, so they are no evidence.
        return bool(here.machine) and here.pids == _INITIAL_PIDS
    try:
        process = psutil.Process(holder.pid)
        same = abs(process.create_time() - holder.started) < _SAME_START_SECONDS
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
