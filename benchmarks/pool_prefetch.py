"""`cellsparse_trainer.data.prefetch.Prefetch` on the standard library's process pool, to be measured beside it."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from cellsparse_common.errors import Internal
from cellsparse_trainer.data.prefetch import AHEAD, WAIT_SECONDS, Batches
from cellsparse_trainer.processes.memory_kills import memory_kills

_sampler: list[Batches] = []


class PoolPrefetch:
    """Batches of a sampler, in order, from a pool that works ahead; arguments and errors as `Prefetch`."""

    def __init__(self, batches: Batches, *, workers: int, steps: int) -> None:
        self._steps, self._limit = steps, AHEAD * workers
        self._memory_kills = memory_kills()
        self._futures: dict[int, Future[Any]] = {}
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        try:
            self._pool = ProcessPoolExecutor(
                workers, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(batches,)
            )
            for _ in range(workers):  # the processes start one by one, with the calls
                self._pool.submit(os.getpid)
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before

    @property
    def pids(self) -> list[int]:
        return list(self._pool._processes)

    def batch(self, step: int) -> Any:
        wanted = range(step, max(step + 1, min(step + 1 + self._limit, self._steps)))
        for past in [known for known in self._futures if known not in wanted]:
            self._futures.pop(past).cancel()
        try:
            for each in wanted:
                if each not in self._futures:
                    self._futures[each] = self._pool.submit(_make, each)
            return self._futures.pop(step).result(WAIT_SECONDS)
        except BrokenProcessPool as error:
            raise self._gone() from error
        except TimeoutError as error:
            raise Internal(f"A process gave no batch for step {step} within {WAIT_SECONDS:.0f} s.") from error

    def close(self) -> None:
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join(5)

    def _gone(self) -> Exception:
        processes = list((self._pool._processes or {}).values())
        for process in processes:
            process.join(5)
        codes = [process.exitcode for process in processes if process.exitcode != -signal.SIGTERM]
        if -signal.SIGKILL in codes and memory_kills() > self._memory_kills:
            return MemoryError("The kernel killed a process that makes batches.")
        return Internal(f"A process that makes batches ended with code {codes[0] if codes else None}.")


def _begin(batches: Batches) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _sampler.append(batches)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(75)


def _make(step: int) -> Any:
    try:
        return _sampler[0].batch(step)
    except MemoryError as error:
        raise MemoryError(str(error)) from None  # numpy's own kind cannot be sent
