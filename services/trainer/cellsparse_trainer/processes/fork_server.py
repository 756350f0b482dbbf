"""Fork training processes from one that has loaded the framework.

Loading a framework takes seconds of processor time, more than a tiny training. The fork server's process imports the
backend, uses nothing of it, and forks for every order on a socket. It exists only where CELLSPARSE_WARM_SECONDS says
how long it may wait. It begins to load with the first attempt, or with the trainer where CELLSPARSE_WARM_START says so.
An order that comes while it loads is done as soon as it has loaded: nothing is loaded twice, and the attempt waits for
what is left of the loading only.

The fork server of `multiprocessing` could serve: `benchmarks/stdlib_fork_server.py` is the part of this module that it
leaves to do, and `make bench-fork-server` measures both. The standard one is not faster, and it lacks three things:

- It has no public way to end when idle, so the framework would stay in memory.
- Its exit codes must not be read from two threads.
- The children of a fork server that is killed would run on unseen.

Code for these would make it as long as this module.
"""

import atexit
import contextlib
import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO

from cellsparse_trainer.processes.thread_counts import thread_counts

_LOG = logging.getLogger(__name__)
WORKER = [sys.executable, "-m", "cellsparse_trainer.training.worker"]
"""The command of a training process; arguments may follow."""
_SEND_SECONDS = 10.0
"""How long an order may take to be sent."""
_LOAD_SECONDS = 600.0
"""How long a fork server may take to load its backend and to fork."""
_PIPES = 5
LOST = -signal.SIGKILL
"""Exit code of a process whose fork server was killed before it could report how the process ended."""


class ForkedProcess:
    """A forked training process, with the part of `subprocess.Popen` that its owner uses."""

    def __init__(self, stdin: int, stdout: int, stderr: int, exit_code: int, pid: int) -> None:
        self.stdin: IO[str] | None = os.fdopen(stdin, "w")
        self.stdout: IO[str] | None = os.fdopen(stdout, "r", errors="replace")
        self.stderr: IO[str] | None = os.fdopen(stderr, "r", errors="replace")
        self.returncode: int | None = None
        self._exit_pipe = exit_code
        self._lock = threading.Lock()
        self._pid_pipe: int | None = pid
        self._pid = 0
        self._pid_lock = threading.Lock()

    @property
    def pid(self) -> int:
        """Id of the process; waits until the fork server has loaded and forked.

        Raises:
            ProcessLookupError: The fork server ended before it forked, or takes too long.
        """
        with self._pid_lock:
            if self._pid_pipe is not None and select.select([self._pid_pipe], [], [], _LOAD_SECONDS)[0]:
                self._pid = int(os.read(self._pid_pipe, 16) or b"0")
                os.close(self._pid_pipe)
                self._pid_pipe = None
        if not self._pid:
            raise ProcessLookupError("The fork server has not forked.")
        return self._pid

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end and return its exit code.

        Args:
            timeout: Most seconds to wait; None for no bound.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not self._lock.acquire(timeout=-1 if left is None else left):
                raise subprocess.TimeoutExpired(WORKER, timeout or 0.0)
            try:
                if self.returncode is None and not select.select([self._exit_pipe], [], [], left)[0]:
                    raise subprocess.TimeoutExpired(WORKER, timeout or 0.0)
                if self.returncode is None:
                    reported = os.read(self._exit_pipe, 16)
                    os.close(self._exit_pipe)
                    self.returncode = int(reported) if reported else self._kill_orphan()
                    with contextlib.suppress(ProcessLookupError):
                        _ = self.pid  # which closes its pipe
            finally:
                self._lock.release()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _kill_orphan(self) -> int:
        """Kill a process whose fork server is gone: nobody would learn how it ends."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        return LOST


class ForkServer:
    """Starts training processes: by forking a process that has loaded the backend.

    Args:
        modules: Import names of the modules to load, with commas between them.
        idle_seconds: How long its process stays without an attempt; 0: all attempts start from nothing.
        at_once: Whether to load them now, and not with the first attempt.
    """

    def __init__(self, modules: str, idle_seconds: float, *, at_once: bool = False) -> None:
        self._modules = modules
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._used = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._forked: list[ForkedProcess] = []
        self._closed = threading.Event()
        if idle_seconds == 0:
            self._closed.set()
        self._reaper: threading.Thread | None = None
        if at_once and not self._closed.is_set():
            with self._lock:
                self._launch()

    def start(self, command: Sequence[str], environment: dict[str, str]) -> "subprocess.Popen[str] | ForkedProcess":
        """Start a training process in its own session, with pipes as its standard streams. Return at once.

        Args:
            command: `WORKER` with its arguments; any other command is started from nothing.
            environment: All variables of the process.

        Raises:
            OSError: The process cannot be started.
        """
        with self._lock:
            self._used = time.monotonic()
            if list(command[: len(WORKER)]) == WORKER and not self._closed.is_set():
                try:
                    if self._process is None or self._process.poll() is not None:
                        self._end()
                        self._launch()
                    forked = self._fork(command[len(WORKER) :], environment)
                    self._forked = [*(known for known in self._forked if known.poll() is None), forked]
                    return forked
                except (OSError, ValueError) as error:
                    _LOG.warning("a training process could not be forked and starts from nothing: %s", error)
                    self._end()
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env=environment,
        )

    def close(self) -> None:
        """Shut down the fork server. End its children first: their exit codes are lost with it."""
        self._closed.set()
        with self._lock:
            self._end()

    def _launch(self) -> None:
        """Start the process that loads the backend."""
        link, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cellsparse_trainer.processes.fork_server", self._modules, str(other.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,
                env={**os.environ, **thread_counts(1), "PYTHONUNBUFFERED": "1"},
            )
        link.settimeout(_SEND_SECONDS)
        self._link = link
        if self._reaper is None:
            self._reaper = threading.Thread(target=self._reap, name="fork-server-reaper", daemon=True)
            self._reaper.start()

    def _fork(self, arguments: Sequence[str], environment: dict[str, str]) -> ForkedProcess:
        assert self._link is not None
        order = json.dumps({"arguments": list(arguments), "environment": environment}).encode()
        # stdin, stdout, stderr, exit code, pid as (read end, write end). The process writes to all but the first.
        pipes = [os.pipe() for _ in range(_PIPES)]
        theirs = [pipes[0][0], *(pipe[1] for pipe in pipes[1:])]
        ours = [pipes[0][1], *(pipe[0] for pipe in pipes[1:])]
        try:
            socket.send_fds(self._link, [len(order).to_bytes(8, "big")], theirs)
            self._link.sendall(order)
        except OSError:
            for descriptor in ours:
                os.close(descriptor)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return ForkedProcess(*ours)

    def _reap(self) -> None:
        """End the process after `idle_seconds` without children: a loaded framework takes memory."""
        while not self._closed.wait(min(self._idle_seconds, 5.0)):
            with self._lock:
                self._forked = [known for known in self._forked if known.poll() is None]
                if not self._forked and time.monotonic() - self._used > self._idle_seconds:
                    self._end()

    def _end(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(5)
        self._link, self._process = None, None


def _receive(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = link.recv(size - len(data))
        if not part:
            raise ConnectionError("the other end is gone")
        data += part
    return data


def main() -> None:
    """Load the modules that the first argument names; fork for each order from the socket that the second one is."""
    modules, descriptor = sys.argv[1], int(sys.argv[2])
    ending = _Ending()
    atexit.register(ending.skip_teardown)  # handlers run in reverse order: this one after those of all that is loaded
    worker = importlib.import_module("cellsparse_trainer.training.worker")
    try:
        for module in modules.split(","):
            importlib.import_module(module)
    except Exception:
        logging.getLogger(__name__).exception("%s cannot be loaded", modules)
    gc.freeze()  # loaded objects stay: a garbage collection would write to their pages and so copy them
    order = _wait_for_order(socket.socket(fileno=descriptor))
    if order is not None:
        sys.argv = [sys.argv[0], *order]
        with ending.watching():
            worker.main()


class _Ending:
    """Ends a process without tearing its modules down.

    The teardown of a framework that is shared with the fork server copies most of its pages, only to free them: for
    torch it took 1.3 of the 1.34 s of processor time of a process that ends at once.
    """

    def __init__(self) -> None:
        self._code = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note the exit code that the block leads to."""
        try:
            yield
        except SystemExit as error:
            self._code = error.code if isinstance(error.code, int) else int(error.code is not None)
            raise
        except BaseException:
            self._code = 1
            raise

    def skip_teardown(self) -> None:
        """End this process at once, its threads joined and its exit handlers done."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self._code)


def _wait_for_order(link: socket.socket) -> list[str] | None:
    """Fork for every order.

    Returns:
        In a forked process the arguments of its order; in this process None, once the server is gone.
    """
    wake, waker = os.pipe()
    for end in (wake, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exits: dict[int, int] = {}
    while True:
        ready = select.select([link.fileno(), wake], [], [])[0]
        if wake in ready:
            os.read(wake, 4096)
            _report(exits)
        if link.fileno() not in ready:
            continue
        size, theirs, _, _ = socket.recv_fds(link, 8, _PIPES)
        if not size:
            return None  # the children notice on their standard input that the server is gone
        order = json.loads(_receive(link, int.from_bytes(size, "big")))
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            with contextlib.suppress(BrokenPipeError):
                os.write(theirs[4], str(os.getpid()).encode())
            _become(order["environment"], theirs, [link.detach(), wake, waker, *exits.values()])
            return [str(argument) for argument in order["arguments"]]
        exits[pid] = theirs[3]
        for end in (*theirs[:3], theirs[4]):
            os.close(end)


def _report(exits: dict[int, int]) -> None:
    """Write the exit code of every child that has ended to its pipe."""
    while exits:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(exits[pid], str(os.waitstatus_to_exitcode(status)).encode())
        os.close(exits.pop(pid))


def _become(environment: dict[str, str], theirs: Sequence[int], others: Sequence[int]) -> None:
    """Take the session, streams and variables that the order names."""
    os.setsid()
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for target, source in enumerate(theirs[:3]):
        os.dup2(source, target)
    for descriptor in {*theirs, *others} - {0, 1, 2}:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lasts as long as the process


if __name__ == "__main__":
    main()
