"""`cellsparse_trainer.processes.fork_server` on `multiprocessing`'s own fork server, to be measured beside it."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from cellsparse_trainer.processes.fork_server import LOST, WORKER


class StdlibForked:
    """A process of `multiprocessing`, with the part of `subprocess.Popen` that its owner uses."""

    def __init__(self, process: multiprocessing.Process, stdin: int, stdout: int, stderr: int) -> None:
        self._process, self._lock = process, threading.Lock()
        self.pid = process.pid
        self.stdin = os.fdopen(stdin, "w")
        self.stdout = os.fdopen(stdout, "r", errors="replace")
        self.stderr = os.fdopen(stderr, "r", errors="replace")

    def poll(self) -> int | None:
        # Two threads must not read the exit code at once: the second would find nothing and take that for a lost child.
        with self._lock:
            code = self._process.exitcode
        if code == 255:  # the fork server is gone and its child an orphan
            self._kill()
            return LOST
        return code

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = 60.0 if end is None else end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(WORKER, timeout or 0.0)
            multiprocessing.connection.wait([self._process.sentinel], left)
        return code

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class StdlibForkServer:
    """Starts training processes by forking; loads the backend with the first."""

    def __init__(self, module: str) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["cellsparse_trainer.training.worker", module, __name__])

    def warm_up(self) -> None:
        """Wait until the backend is loaded: nothing else says so than a process that ends."""
        process = self._context.Process(target=os.getpid)
        process.start()
        process.join()

    def start(self, command: Sequence[str], environment: dict[str, str]) -> StdlibForked:
        pipes = [os.pipe() for _ in range(3)]
        theirs = [Connection(pipes[0][0], writable=False), *(Connection(w, readable=False) for _, w in pipes[1:])]
        process = self._context.Process(target=_run, args=(list(command[len(WORKER) :]), environment, theirs))
        process.start()
        for end in theirs:
            end.close()
        return StdlibForked(process, pipes[0][1], pipes[1][0], pipes[2][0])

    def close(self) -> None:
        """Ends by itself with this process; `multiprocessing` has no public way to end it before."""


def _run(arguments: list[str], environment: dict[str, str], streams: list[Connection]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for target, stream in enumerate(streams):
        os.dup2(stream.fileno(), target)
        stream.close()
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lasts as long as the process
    sys.argv = ["worker", *arguments]
    from cellsparse_trainer.training import worker

    worker.main()
