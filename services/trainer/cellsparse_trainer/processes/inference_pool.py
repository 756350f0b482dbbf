"""Processes that predict, behind one fair and bounded queue."""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import grpc

from cellsparse_common.errors import Cancelled, DeadlineExceeded
from cellsparse_common.logs import traceparent
from cellsparse_common.rpc.callers import Caller, caller_of
from cellsparse_trainer.processes.fair_queue import Entry, FairQueue
from cellsparse_trainer.processes.inference_process import GRACE_SECONDS, InferenceProcess

T = TypeVar("T")
Together = Callable[[Sequence[tuple[Any, ...]]], list[Any]]
MOST_TOGETHER = 8
"""Most pieces of work that are done together."""
_LOOK_SECONDS = 1.0
_NOBODY = Caller("", "")


@dataclass(frozen=True, kw_only=True)
class Work:
    """A function to call in a process."""

    run: Callable[..., Any]
    """A function of a module."""
    args: tuple[Any, ...]
    """They travel pickled, between our own processes only."""
    together: Together | None = None
    """Does several at once, given the arguments of each: a function of a module that returns an answer or an error for
    each."""
    trace: str = ""
    """`traceparent` of the call that it is for."""


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who waits for work to be done, and for how long."""

    seconds: float
    caller: Caller = _NOBODY
    when_gone: Callable[[Callable[[], None]], bool] = lambda _: True
    """Takes what to call when the caller goes; returns False if it is gone (see `grpc.RpcContext.add_callback`)."""
    patient: bool = False
    """Never refused because others wait: for calls whose number is bounded elsewhere."""
    when_queued: Callable[[], None] = lambda: None
    """Called once the work has its place in the queue."""


def asker_of(context: grpc.ServicerContext, seconds: float, *, patient: bool = False) -> Asker:
    """Return the client of a call as an asker that waits for at most some seconds.

    One that is not patient learns from the call's initial metadata, sent at once, that its place in the queue is taken:
    an orchestrator with several such calls makes the next one then, so that they keep their order.
    """

    def tell() -> None:
        with suppress(grpc.RpcError):  # the client is gone
            context.send_initial_metadata(())

    return Asker(
        seconds=seconds,
        caller=caller_of(context),
        when_gone=context.add_callback,
        patient=patient,
        when_queued=(lambda: None) if patient else tell,
    )


class InferencePool:
    """Processes that do one piece of work at a time each, started when needed and ended when idle.

    Args:
        environments: Variables of each process beside those of this one; one process each.
        limit: Pieces of work that may wait.
        idle_seconds: Time without work after which a process is ended.
        grace_seconds: How long work that nobody waits for any more may still take.
    """

    def __init__(
        self,
        environments: Sequence[Mapping[str, str]],
        limit: int,
        idle_seconds: float,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._idle_seconds = idle_seconds
        self._queue = FairQueue(limit, len(environments))
        self._closed = threading.Event()
        self._processes = [InferenceProcess(environment, grace_seconds) for environment in environments]
        for number, process in enumerate(self._processes):
            threading.Thread(target=self._serve, args=(process,), name=f"inference-{number}", daemon=True).start()

    def call(
        self,
        run: Callable[..., T],
        *args: Any,
        asker: Asker,
        what: str = "prediction",
        group: Hashable = None,
        together: Together | None = None,
    ) -> T:
        """Run `run(*args)` in one of the processes, when it is the caller's turn.

        Args:
            run: A function of a module.
            args: Its arguments.
            asker: Who waits for it.
            what: Name of the work in error messages.
            group: Work of equal groups may be done together; None: alone.
            together: Does so (see `Work`).

        Raises:
            Busy: Too much waits, or the caller would wait in vain.
            DeadlineExceeded: The caller's time was over.
            Cancelled: The caller is gone.
            Unavailable: The process died, or the service stops.
            ResourceExhausted: Memory ran out, and the process lives.
            RuntimeError: A framework raised an error.
        """
        work = Work(run=run, args=args, together=together, trace=traceparent())
        entry = Entry(caller=asker.caller, work=work, group=group, patient=asker.patient, what=what)
        self._queue.join(entry, asker.seconds)
        asker.when_queued()
        gone = Cancelled(f"The caller of the {what} is gone.")
        if not asker.when_gone(lambda: self._queue.leave(entry, gone)):
            self._queue.leave(entry, gone)
        wait([entry.answer], max(asker.seconds, 0.0))
        late = DeadlineExceeded(f"The {what} took longer than {asker.seconds:.0f} s, with the time in the queue.")
        self._queue.leave(entry, late)
        answer: T = entry.answer.result()
        return answer

    @property
    def waiting(self) -> int:
        """How many pieces of work wait for a process."""
        return self._queue.length

    @property
    def demand(self) -> int:
        """How many wait for a process, with those that were told to come back."""
        return self._queue.demand

    def close(self) -> None:
        """End the processes; whoever waits gets Unavailable."""
        self._closed.set()
        self._queue.close()
        for process in self._processes:
            process.end()

    def _serve(self, process: InferenceProcess) -> None:
        idle_since = monotonic()
        while not self._closed.is_set():
            entries = self._queue.take(MOST_TOGETHER, min(self._idle_seconds, _LOOK_SECONDS))
            if entries:
                self._do(process, entries)
                idle_since = monotonic()
            elif monotonic() - idle_since > self._idle_seconds:
                process.rest()
                idle_since = monotonic()

    def _do(self, process: InferenceProcess, entries: list[Entry]) -> None:
        """Do entries that belong together, and answer them."""
        woken = threading.Event()

        def look() -> None:
            if all(entry.gone for entry in entries):
                woken.set()

        for entry in entries:
            entry.when_gone = look
        look()
        began, warm = monotonic(), process.warm
        try:
            answers = _run(process, entries, woken)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it; this thread goes on
            if len(entries) > 1:
                self._do_apart(process, entries)
                return
            answers = [error] * len(entries)
        if warm:  # the first one loads the framework, too
            self._queue.note(monotonic() - began, len(entries))
        for entry, answer in zip(entries, answers, strict=True):
            self._queue.answer(entry, answer)

    def _do_apart(self, process: InferenceProcess, entries: list[Entry]) -> None:
        """Do entries one by one that failed together: one of them may have killed the process."""
        for entry in entries:
            if not entry.gone:
                self._do(process, [entry])


def _run(process: InferenceProcess, entries: list[Entry], woken: threading.Event) -> list[Any]:
    first: Work = entries[0].work
    if len(entries) == 1 or first.together is None:
        return [process.run(first.run, *first.args, what=entries[0].what, woken=woken, trace=first.trace)]
    arguments = [entry.work.args for entry in entries]
    # What several calls share is part of the trace of the first.
    return process.run(first.together, arguments, what=entries[0].what, woken=woken, trace=first.trace)
