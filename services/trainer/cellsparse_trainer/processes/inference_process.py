"""A process that opens models and segments: a crash or lack of memory there fails one call, not the server."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from cellsparse_common import tracing
from cellsparse_common.errors import Cancelled, CellsparseError, ResourceExhausted, Unavailable
from cellsparse_common.imaging.decoder_process import decode_apart
from cellsparse_trainer.processes.failures import is_out_of_memory
from cellsparse_trainer.processes.orphan import end_with_parent

T = TypeVar("T")
GRACE_SECONDS = 5.0
"""How long work that nobody waits for any more may still take. A new process would have to load the framework first."""
_KILL_SECONDS = 5.0


class InferenceProcess:
    """A process for one piece of work at a time, started when needed. Used by one thread; `end` by any.

    Args:
        environment: Variables of the process beside those of this one.
        grace_seconds: How long work that nobody waits for may still take.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, grace_seconds: float = GRACE_SECONDS) -> None:
        self._environment = dict(environment or {})
        self._grace_seconds = grace_seconds
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._ended = False
        self.warm = False
        """Whether it has done something already, so that its framework is loaded."""

    def run(self, work: Callable[..., T], *args: Any, what: str, woken: threading.Event, trace: str = "") -> T:
        """Run `work(*args)` in the process.

        Args:
            work: A function of a module.
            args: Its arguments; they travel pickled, between our own processes only.
            what: Name of the work in error messages.
            woken: Set by somebody else: nobody waits for the work any more. Also set here.
            trace: `traceparent` of the call that it is for.

        Raises:
            Cancelled: Nobody waits for it any more. The process was killed if the work did not end soon.
            Unavailable: The process died.
            ResourceExhausted: Memory ran out, and the process lives.
            RuntimeError: A framework raised an error. Its text is given here; its class cannot be unpickled without
                the framework.
        """
        try:
            future = self._submit(_run, what, trace, work, args)
            future.add_done_callback(lambda _: woken.set())
            woken.wait()
            if not future.done():
                wait([future], self._grace_seconds)
            if not future.done():
                self._kill()
                raise Cancelled(f"Nobody waits for the {what} any more.")
            answer: T = future.result()
            self.warm = True
            return answer
        except BrokenProcessPool as error:
            self._kill()
            raise Unavailable(
                f"The process of the {what} died: killed, or out of memory; try again, or with a smaller image."
            ) from error

    def rest(self) -> None:
        """End the process and free its memory; the next work starts a new one."""
        self._kill()

    def end(self) -> None:
        """End the process for good."""
        with self._lock:
            self._ended = True
        self._kill()

    def _submit(self, call: Callable[..., T], *args: Any) -> "Future[T]":
        with self._lock:
            if self._ended:
                raise Unavailable("The service is stopping; try again in a moment.")
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_begin,
                    initargs=(os.getpid(), self._environment, tracing.service()),
                )
            return self._pool.submit(call, *args)

    def _kill(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
            self.warm = False
        if pool is None:
            return
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        end = time.monotonic() + _KILL_SECONDS
        for process in processes:
            with contextlib.suppress(AssertionError):  # it is somebody else's to wait for
                process.join(max(end - time.monotonic(), 0.0))  # its files can be removed from now on


def _run(what: str, trace: str, work: Callable[..., T], args: tuple[Any, ...]) -> T:
    """Do a call's work in the process, and raise no exception that only a framework can unpickle."""
    try:
        with tracing.span(what, parent=trace):
            return work(*args)
    except CellsparseError:
        raise
    except Exception as error:
        raise sendable(error, what) from error


def sendable(error: Exception, what: str) -> Exception:
    """Return an error as one that the server can read without a framework.

    Args:
        error: Whatever the work raised.
        what: Name of the work.
    """
    if isinstance(error, CellsparseError):
        return error
    if is_out_of_memory(error):
        return ResourceExhausted(f"Memory ran out in the {what}; try again, or with a smaller image.")
    return RuntimeError(f"{type(error).__name__}: {error}")


def _begin(parent: int, environment: Mapping[str, str], service: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(environment)
    if service:  # the server records traces
        tracing.start(f"{service}-inference", delay_ms=tracing.CHILD_DELAY_MS)
    decode_apart()  # a file that crashes its decoder would take the framework with it, and whoever waits with it
    end_with_parent(parent)  # a pool's process would otherwise wait for work forever
