"""Batches made ahead of the network by processes of their own.

A process is `python -m cellsparse_trainer.data.prefetch FD`: it gets a sampler over a socket, then numbers of steps,
and answers each with its batch. Batches travel over the socket too: no shared memory is needed, so a container's small
/dev/shm is no limit. A process ends as soon as its socket closes, so none outlives the training, however that ends.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

from cellsparse_common.errors import Internal
from cellsparse_trainer.processes.memory_kills import memory_kills
from cellsparse_trainer.processes.orphan import ORPHANED

AHEAD = 2
"""Batches that each process makes ahead."""
WAIT_SECONDS = 600.0
"""Longest wait for one batch."""
MOST_BY_DEFAULT = 4


class Batches(Protocol):
    """Where a training's batches come from."""

    def batch(self, step: int) -> Any:
        """Return the batch of a step (from 0): a pure function of the seed and the step."""


class _Process:
    """One process and the steps it was asked for."""

    def __init__(self, batches: Batches) -> None:
        self._memory_kills = memory_kills()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self._connection = Connection(ours.detach())
        self.pid = self._process.pid
        try:
            self._connection.send(batches)
        except OSError as gone:
            raise self._gone() from gone

    def ask(self, step: int) -> None:
        """Ask for the batch of a step; a process that is gone is said by `answer`, at the step it cannot give."""
        with contextlib.suppress(OSError):
            self._connection.send(step)

    def answer(self, step: int) -> Any:
        """Wait for the batch of a step; those of steps before it are dropped.

        Raises:
            Internal: The process is gone, or does not answer in time.
            MemoryError: The kernel has killed it for want of memory.
            Exception: What ended the process' work.
        """
        while True:
            if not self._connection.poll(WAIT_SECONDS):
                raise Internal(f"A process gave no batch for step {step} within {WAIT_SECONDS:.0f} s.")
            try:
                found, batch, error = self._connection.recv()
            except (EOFError, OSError) as gone:
                raise self._gone() from gone
            if error is not None:
                raise error
            if found == step:
                return batch

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def _gone(self) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self._process.returncode == -signal.SIGKILL and memory_kills() > self._memory_kills:
            return MemoryError("The kernel killed a process that makes batches.")
        return Internal(f"A process that makes batches ended with code {self._process.returncode}; the log has more.")


class Prefetch:
    """Batches of a sampler, in order, from processes that work ahead by `AHEAD` batches each.

    Args:
        batches: A sampler that can be pickled.
        workers: Number of processes, from 1.
        steps: Number of the run's steps; no batch is made beyond.
    """

    def __init__(self, batches: Batches, *, workers: int, steps: int) -> None:
        self._steps = steps
        self._first = self._next = 0
        self._processes: list[_Process] = []
        try:
            for _ in range(workers):
                self._processes.append(_Process(batches))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Ids of the processes."""
        return [process.pid for process in self._processes]

    def batch(self, step: int) -> Any:
        """Return the batch of a step (from 0), and have those of the next steps made.

        Raises:
            Internal: A process is gone, or does not answer in time.
            Exception: What went wrong in a process.
        """
        if not self._first <= step < self._next:
            self._next = step
        self._first = step + 1
        count = len(self._processes)
        while self._next <= step or self._next < min(step + 1 + AHEAD * count, self._steps):
            self._processes[self._next % count].ask(self._next)
            self._next += 1
        return self._processes[step % count].answer(step)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.close()
        self._processes = []


def default_workers(devices: Sequence[str], device: str) -> int:
    """Return how many processes make batches unless a number is asked for.

    On the CPU none: the network keeps all cores busy. Else one less than there are cores, at most four.

    Args:
        devices: What `Backend.devices` found.
        device: "auto", "cpu" or "cuda".
    """
    if device == "cpu" or not any(name.startswith("cuda") for name in devices):
        return 0
    return max(0, min(MOST_BY_DEFAULT, len(os.sched_getaffinity(0)) - 1))


def _read(connection: Connection, asked: "queue.SimpleQueue[Any]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked.put(connection.recv())
    os._exit(ORPHANED)


def main() -> None:
    """Answer the steps that come over the socket whose descriptor is the argument, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
    batches: Batches = connection.recv()
    threading.Thread(target=_read, args=(connection, asked), daemon=True).start()
    while True:
        answer = _answer(batches, asked.get())
        try:
            connection.send(answer)
        except OSError:
            os._exit(ORPHANED)


def _answer(batches: Batches, step: int) -> tuple[int, Any, Exception | None]:
    try:
        return step, batches.batch(step), None
    except MemoryError as error:
        return step, None, MemoryError(str(error))  # numpy's own kind cannot be sent
    except Exception as error:  # noqa: BLE001 - it is the training's to handle
        return step, None, error


if __name__ == "__main__":
    main()
