"""One trial: create its run, watch it, cancel it if it is too poor, and read the score of its model."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cellsparse import enum_names, runs
from cellsparse.connection import Connection
from cellsparse.errors import (
    Busy,
    CellsparseError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)
from cellsparse.reconnect import ASK_SECONDS, OnLost, reconnecting
from cellsparse.search.plan import SearchPlan
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

PATIENCE_SECONDS = 600.0
"""Seconds without an answer after which a search gives up; it may run for days, and its runs continue meanwhile."""
QUOTA_SECONDS = 86_400.0
"""Longest wait of a trial for a quota of its project."""
QUOTA_PAUSE_SECONDS = 5.0

OnWait = Callable[[CellsparseError], None]
T = TypeVar("T")


class Trials(Protocol):
    """The methods of `cellsparse.search.trial_store.TrialStore` that a trial needs; see there."""

    def settings(self, number: int) -> dict[str, Any]: ...  # noqa: D102
    def note_run(self, number: int, run_id: str) -> None: ...  # noqa: D102
    def validated(self, number: int, step: int, value: float) -> bool: ...  # noqa: D102
    def is_pruned(self, number: int) -> bool: ...  # noqa: D102
    def note_end(self, number: int, steps: int, seconds: float) -> None: ...  # noqa: D102
    def complete(self, number: int, value: float) -> None: ...  # noqa: D102
    def prune(self, number: int) -> None: ...  # noqa: D102
    def fail(self, number: int, message: str) -> None: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class TrialWatcher:
    """Runs trials to their end over its own connection, and survives outages of the orchestrator."""

    connection: Connection
    plan: SearchPlan
    trials: Trials
    patience: float = PATIENCE_SECONDS
    """Seconds without an answer after which to give up."""
    on_lost: OnLost = lambda *_: None
    """Called with the error and the seconds left, each time the orchestrator does not answer."""
    on_back: Callable[[], None] = lambda: None
    """Called when it answers again."""
    on_wait: OnWait = lambda _: None
    """Called with the refusal, once for each trial that waits for a quota of its project."""
    quota_patience: float = QUOTA_SECONDS
    """Longest wait for a quota, seconds."""
    quota_pause: float = QUOTA_PAUSE_SECONDS
    """Seconds between two looks at it."""

    def follow(self, number: int) -> None:
        """Run a trial, or resume it, to its end.

        A run that fails, or whose settings the orchestrator refuses, makes a failed trial and raises nothing.

        Raises:
            CellsparseError: The orchestrator does not answer, there is no such dataset, or the project's quota has been
                used up all the time. The trial can be resumed later.
        """
        try:
            run = self._create(number)
        except (InvalidArgument, FailedPrecondition) as error:
            self.trials.fail(number, error.message)
            return
        self.trials.note_run(number, run.id)
        if self.trials.is_pruned(number):  # the driver was killed between the decision and the call
            self._cancel(run.id)
        self._watch(number, run.id)
        self._end(number, self._asked(lambda: runs.get(self.connection, run.id, timeout=ASK_SECONDS)))

    def _create(self, number: int) -> orchestrator_pb2.Run:
        """Return the trial's run: the same request id makes one run, however often it is sent.

        While a quota of the project is used up, wait as the members of a study do.
        """
        request = self.plan.request(number, self.trials.settings(number))
        give_up, told = time.monotonic() + self.quota_patience, False
        while True:
            try:
                answer: orchestrator_pb2.CreateRunResponse = self._asked(
                    lambda: self.connection.call("CreateRun", request)
                )
            except Busy:
                raise
            except ResourceExhausted as error:
                if time.monotonic() + self.quota_pause > give_up:
                    raise
                if not told:
                    self.on_wait(error)
                    told = True
            else:
                return answer.run
            time.sleep(self.quota_pause)

    def _watch(self, number: int, run_id: str) -> None:
        events = runs.watch(self.connection, run_id, patience=self.patience, on_lost=self.on_lost, on_back=self.on_back)
        cancelled = False
        for event in events:
            value = event.training.validation.get(self.plan.metric, math.nan)
            if cancelled or event.state != common_pb2.RUN_STATE_RUNNING or not math.isfinite(value):
                continue
            if self.trials.validated(number, event.training.step, value):
                self._cancel(run_id)
                cancelled = True

    def _end(self, number: int, run: orchestrator_pb2.Run) -> None:
        seconds = (run.ended_at.ToNanoseconds() - run.started_at.ToNanoseconds()) / 1e9
        self.trials.note_end(number, run.progress.step, seconds if run.HasField("started_at") else 0.0)
        if run.state == common_pb2.RUN_STATE_SUCCEEDED:
            value = self._score(run.id)
            if math.isfinite(value):
                self.trials.complete(number, value)
            else:
                self.trials.fail(number, f"the model has no {self.plan.metric}")
        elif run.state == common_pb2.RUN_STATE_CANCELLED and self.trials.is_pruned(number):
            self.trials.prune(number)
        else:
            state = enum_names.name(common_pb2.RunState.DESCRIPTOR, run.state)
            self.trials.fail(number, f"run {state}: {run.message}" if run.message else f"run {state}")

    def _score(self, model_id: str) -> float:
        """Return the score of the weights that were kept, which need not be the last."""
        request = orchestrator_pb2.GetModelRequest(model_id=model_id)
        model = self._asked(lambda: self.connection.call("GetModel", request)).model
        return float(model.validation.get(self.plan.metric, math.nan))

    def _cancel(self, run_id: str) -> None:
        self._asked(lambda: runs.cancel(self.connection, run_id))

    def _asked(self, call: Callable[[], T]) -> T:
        """Make an idempotent call, and repeat it after an outage as a stream is."""

        def answers() -> Iterator[T]:
            try:
                yield call()
            except DeadlineExceeded as error:
                raise Unavailable(f"The orchestrator at {self.connection.address} does not answer.") from error

        return next(
            reconnecting(
                self.connection,
                answers,
                lambda: True,
                patience=self.patience,
                on_lost=self.on_lost,
                on_back=self.on_back,
            )
        )
