"""The local services as processes: start the orchestrator detached, wait until all are healthy, stop them all."""

import fcntl
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import psutil

from cellsparse.client import Client
from cellsparse.errors import (
    CellsparseError,
    DeadlineExceeded,
    FailedPrecondition,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from cellsparse.home import (
    DEFAULT_HOME,
    ORCHESTRATOR_FILE,
    START_SECONDS,
    STOP_SECONDS,
    RunningOrchestrator,
    read_orchestrator,
)
from cellsparse.targets import file_errors, make_home, opened
from cellsparse.tokens import find_token
from cellsparse_proto.v1 import orchestrator_pb2

COMMAND = [sys.executable, "-m", "cellsparse_orchestrator"]
GATEWAY = "cellsparse_gateway"
WEB_PORT = 8000
"""Port of the page; QuPath's extensions look for their server there."""
WARM_SECONDS = "600"
"""For how long trainers keep their framework loaded by default: whoever corrects labels and trains again does not wait
for it. `CELLSPARSE_WARM_SECONDS` replaces it."""
KILL_SECONDS = 5.0
PAUSE_SECONDS = 0.2


def log_path(home: Path) -> Path:
    """Return the file that holds the orchestrator's log."""
    return home / "logs" / "orchestrator.log"


def running(home: Path) -> RunningOrchestrator | None:
    """Return the orchestrator that runs from a home folder; None if none does."""
    orchestrator = read_orchestrator(home)
    if orchestrator is None or not orchestrator.pid or not psutil.pid_exists(orchestrator.pid):
        return None
    return orchestrator if _belongs(psutil.Process(orchestrator.pid), home) else None


def up(
    home: Path,
    *,
    port: int | None = None,
    web_port: int | None = None,
    timeout: float = START_SECONDS,
    on_wait: Callable[[orchestrator_pb2.GetStatusResponse], None] = lambda _: None,
) -> tuple[bool, RunningOrchestrator, orchestrator_pb2.GetStatusResponse]:
    """Start the services of a home folder unless they run, and wait until all are healthy.

    Args:
        home: Home folder; made if missing.
        port: TCP port to listen on, 0 for any free one; None: CELLSPARSE_PORT, else the orchestrator's default for the
            default home and any free one for another.
        web_port: TCP port of the page; 0 for any free one. None: CELLSPARSE_WEB_PORT, else 8000 for the default home
            if it is free, and any free one otherwise; no page where clients need certificates.
        timeout: Seconds to wait.
        on_wait: Called with each status on the way.

    Returns:
        Whether this call started it, the running orchestrator, and its status.

    Raises:
        Unavailable: The orchestrator ended at once; the message has the end of its log.
        DeadlineExceeded: Not everything was healthy in time. What was started keeps running.
        FailedPrecondition: Another process is starting it, or `web_port` is in use.
    """
    with _lock(home):
        orchestrator = running(home)
        process = None if orchestrator else _launch(home, port, web_port)
        end = time.monotonic() + timeout
        status = None
        while time.monotonic() < end:
            if process is not None and process.poll() is not None:
                tail = _log_tail(home)
                raise Unavailable(
                    f"The orchestrator ended with code {process.returncode}; {log_path(home)} ends: {tail}"
                )
            orchestrator = running(home)
            if orchestrator is not None:
                status = _status(orchestrator, home) or status
                if status is not None and status.services and all(service.healthy for service in status.services):
                    return process is not None, orchestrator, status
                if status is not None:
                    on_wait(status)
            time.sleep(PAUSE_SECONDS)
    sick = (
        [f"{service.name} ({service.message})" for service in status.services if not service.healthy] if status else []
    )
    raise DeadlineExceeded(
        f"Not healthy after {timeout:.0f} s: {', '.join(sick) or 'orchestrator'}; see {log_path(home)}. "
        "What was started keeps running; `cellsparse down` stops it."
    )


def foreground(home: Path, *, port: int | None = None, web_port: int | None = None) -> int:
    """Run the orchestrator as a child until it ends, with its log on stderr; Ctrl-C ends it.

    Returns:
        Its exit code.

    Raises:
        FailedPrecondition: It runs already.
    """
    orchestrator = running(home)
    if orchestrator is not None:
        raise FailedPrecondition(
            f"The orchestrator runs already at {orchestrator.address} (process {orchestrator.pid})."
        )
    make_home(home)
    process = subprocess.Popen(COMMAND, env=_environment(home, port, web_port), stdin=subprocess.DEVNULL)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the child got the same signal and shuts down by itself, within a limit of its own


def down(home: Path, *, timeout: float = STOP_SECONDS) -> int:
    """Stop all processes of a home folder: terminate, wait, then kill.

    Args:
        home: Home folder.
        timeout: Seconds that the orchestrator has to stop its services.

    Returns:
        Number of processes stopped.
    """
    orchestrator = read_orchestrator(home)
    members = _members(home)
    leaders = [process for process in members if orchestrator is not None and process.pid == orchestrator.pid]
    for process in leaders or members:
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(members, timeout=timeout)
    # What is left ignored the signal, or was started in the meantime.
    for process in (left := {*alive, *_members(home)}):
        _quietly(process.kill)
    psutil.wait_procs(list(left), timeout=KILL_SECONDS)
    if members:
        with file_errors(f"{home} cannot be used"):
            (home / ORCHESTRATOR_FILE).unlink(missing_ok=True)
    return len(members)


def _launch(home: Path, port: int | None, web_port: int | None) -> "subprocess.Popen[bytes]":
    with file_errors(f"{home} cannot be used"):
        (home / ORCHESTRATOR_FILE).unlink(missing_ok=True)  # of one that died without cleaning up
    log = log_path(home)
    make_home(log.parent)
    with opened(log) as sink:
        return subprocess.Popen(
            COMMAND,
            env=_environment(home, port, web_port),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,  # Ctrl-C in this terminal is not meant for it
        )


def _environment(home: Path, port: int | None, web_port: int | None) -> dict[str, str]:
    environment = {**os.environ, "CELLSPARSE_HOME": str(home)}
    environment.setdefault("CELLSPARSE_WARM_SECONDS", WARM_SECONDS)
    if port is None and "CELLSPARSE_PORT" not in environment and home != Path.home() / DEFAULT_HOME:
        port = 0  # services of several homes run side by side
    if port is not None:
        environment["CELLSPARSE_PORT"] = str(port)
    if importlib.util.find_spec(GATEWAY) is None:
        return environment  # an installation without the page
    if web_port is None and environment.get("CELLSPARSE_TLS_CLIENT_CA"):
        return environment  # whoever reaches the page needs no certificate, so that it opens only if it is asked for
    if web_port is not None or "CELLSPARSE_WEB_PORT" not in environment:
        environment["CELLSPARSE_WEB_PORT"] = str(_page_port(home, web_port))
    return environment


def _page_port(home: Path, asked: int | None) -> int:
    """Return the port of the page: a number even if any will do, so that a restarted server takes the same one.

    Raises:
        FailedPrecondition: The port asked for is in use.
    """
    if asked:
        if not _is_usable(home, asked):
            raise FailedPrecondition(f"Port {asked} is in use; --web-port takes another one, 0 any free one.")
        return asked
    usual = [WEB_PORT] if home == Path.home() / DEFAULT_HOME else []
    for port in () if asked == 0 else (*usual, _last_page_port(home)):
        if port and _is_usable(home, port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_page_port(home: Path) -> int:
    try:
        return int((home / "services" / "gateway.address").read_text().rpartition(":")[2])
    except (OSError, ValueError):
        return 0


def _is_usable(home: Path, port: int) -> bool:
    """Whether a port is free, or held by the gateway that a killed orchestrator of this home has left."""
    if _is_free(port):
        return True
    return port == _last_page_port(home) and any(GATEWAY in " ".join(_command(process)) for process in _members(home))


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: connections that have just ended do not keep a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def page_url(status: orchestrator_pb2.GetStatusResponse) -> str:
    """Return the address of the page; empty if it does not answer."""
    for service in status.services:
        if service.name == "gateway" and service.address and service.healthy:
            host, _, port = service.address.rpartition(":")
            return f"http://{'127.0.0.1' if host in ('', '0.0.0.0') else host}:{port}/"  # noqa: S104 - nothing binds
    return ""


def _members(home: Path) -> list[psutil.Process]:
    """Return all service processes of a home folder, orphans of a killed orchestrator included."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        if _belongs(process, home):
            for one in (process, *_offspring(process)):
                found.setdefault(one.pid, one)
    return list(found.values())


def _belongs(process: psutil.Process, home: Path) -> bool:
    """Whether a process is a service of this home folder. Process ids are reused, so the id alone proves nothing."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE or not _is_service(process.cmdline()):
            return False
        where = process.environ().get("CELLSPARSE_HOME")
    except psutil.Error:
        return False  # ended in the meantime, or owned by another user
    return Path(where).resolve() == home.resolve() if where else False


def _offspring(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _is_service(command: list[str]) -> bool:
    script = any(Path(part).name.startswith("cellsparse-") for part in command[:2])
    return script or any(flag == "-m" and module.startswith("cellsparse_") for flag, module in pairwise(command))


def _status(orchestrator: RunningOrchestrator, home: Path) -> orchestrator_pb2.GetStatusResponse | None:
    try:
        with Client(orchestrator.address, token=find_token(orchestrator.address, home)) as client:
            return client.status(timeout=5.0)
    except (Unauthenticated, PermissionDenied):
        raise  # waiting does not help
    except CellsparseError:
        return None  # not ready yet; the caller has a deadline


def _quietly(act: Callable[[], object]) -> None:
    try:
        act()
    except psutil.NoSuchProcess:
        return


def _log_tail(home: Path, lines: int = 5) -> str:
    try:
        return "\n".join(["", *log_path(home).read_text(errors="replace").splitlines()[-lines:]])
    except OSError:
        return "(no log)"


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    make_home(home)
    with opened(home / "up.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FailedPrecondition(f"Another `cellsparse up` is starting the services of {home}.") from error
        yield
