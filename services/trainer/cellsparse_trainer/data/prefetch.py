"""Make batches ahead of the network in worker processes.

A worker is `python -m cellsparse_trainer.data.prefetch FD`. It receives a sampler over a socket, then step numbers, and
answers each step with its batch. Batches travel over the socket too, so a container's small /dev/shm is no limit. A
worker ends as soon as its socket closes, so none outlives the training, however the training ends.

`concurrent.futures.ProcessPoolExecutor` could serve: `benchmarks/pool_prefetch.py` is this module on it, and
`make bench-prefetch` measures both. The pool's workers share one pipe for results. A worker that the kernel kills in
the middle of a batch leaves half a message there, and the pool may wait for the rest for ever. With a socket per
worker such a loss is noticed at once. The pool also fails batches that were made before the loss. It imports the
parent's main module again in every worker, which delays the first batch, and it keeps finished batches in the memory
of the training process.
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

from cellsparse_common.cpus import usable_cpus
from cellsparse_common.errors import Internal
from cellsparse_trainer.processes.memory_kills import memory_kills
from cellsparse_trainer.processes.orphan import ORPHANED

AHEAD = 2
"""Batches that each worker makes ahead."""
WAIT_SECONDS = 600.0
"""Longest wait for one batch."""
MOST_BY_DEFAULT = 4


class Batches(Protocol):
    """Where a training's batches come from."""

    def batch(self, step: int) -> Any:
        """Return the batch of a step (from 0): a pure function of the seed and the step."""


class _Worker:
    """One worker process and its socket."""

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
            raise self._explain_exit() from gone

    def request(self, step: int) -> None:
        """Request the batch of a step. `receive` reports the loss of the process, at the step that is missing."""
        with contextlib.suppress(OSError):
            self._connection.send(step)

    def receive(self, step: int) -> Any:
        """Wait for the batch of a step; drop the batches of earlier requests.

        Raises:
            Internal: The process is gone, or does not answer in time.
            MemoryError: The kernel killed it because memory ran out.
            Exception: What the sampler raised.
        """
        while True:
            if not self._connection.poll(WAIT_SECONDS):
                raise Internal(f"A process gave no batch for step {step} within {WAIT_SECONDS:.0f} s.")
            try:
                found, batch, error = self._connection.recv()
            except (EOFError, OSError) as gone:
                raise self._explain_exit() from gone
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

    def _explain_exit(self) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self._process.returncode == -signal.SIGKILL and memory_kills() > self._memory_kills:
            return MemoryError("The kernel killed a process that makes batches.")
        return Internal(f"A process that makes batches ended with code {self._process.returncode}; the log has more.")


class Prefetch:
    """Batches of a sampler from worker processes, each up to `AHEAD` batches ahead.

    Args:
        batches: A sampler that can be pickled.
        workers: Number of processes, from 1.
        steps: Number of steps of the run; no batch is made for later steps.
    """

    def __init__(self, batches: Batches, *, workers: int, steps: int) -> None:
        self._steps = steps
        self._first = self._next = 0
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(_Worker(batches))
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Ids of the processes."""
        return [worker.pid for worker in self._workers]

    def batch(self, step: int) -> Any:
        """Return the batch of a step (from 0) and request those of the next steps.

        Raises:
            Internal: A process is gone, or does not answer in time.
            MemoryError: The kernel killed a process because memory ran out.
            Exception: What the sampler raised.
        """
        if not self._first <= step < self._next:
            self._next = step
        self._first = step + 1
        count = len(self._workers)
        while self._next <= step or self._next < min(step + 1 + AHEAD * count, self._steps):
            self._workers[self._next % count].request(self._next)
            self._next += 1
        return self._workers[step % count].receive(step)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()
        self._workers = []


def default_workers(devices: Sequence[str], device: str) -> int:
    """Return the default number of worker processes.

    None on the CPU, where the network keeps all cores busy. Otherwise one less than there are CPUs, at most four.

    Args:
        devices: What `Backend.devices` found.
        device: "auto", "cpu" or "cuda".
    """
    if device == "cpu" or not any(name.startswith("cuda") for name in devices):
        return 0
    return max(0, min(MOST_BY_DEFAULT, usable_cpus() - 1))


def _read(connection: Connection, requests: "queue.SimpleQueue[Any]") -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            requests.put(connection.recv())
    os._exit(ORPHANED)


def main() -> None:
    """Answer requests from the socket whose descriptor is the argument, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    batches: Batches = connection.recv()
    threading.Thread(target=_read, args=(connection, requests), daemon=True).start()
    while True:
        answer = _answer(batches, requests.get())
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
