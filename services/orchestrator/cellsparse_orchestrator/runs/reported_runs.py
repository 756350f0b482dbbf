"""Runs that are changed by what watchers report of their newest attempts: read and written many at once.

A thousand trainings report every second. SQLAlchemy's unit of work took most of the time of storing an event
(docs/scale.md), so here the rows are read as tuples, changed in memory, and written by one statement for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, LargeBinary, Table, bindparam, func, insert, select, update

from cellsparse_common.errors import Aborted
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.tables import AttemptRow, EventRow, RunRow, Sentence, UtcTime
from cellsparse_orchestrator.runs.events import event_values
from cellsparse_proto.v1 import trainer_pb2

_STARTING = run_states.state_name(run_states.STARTING)
_RUNNING = run_states.state_name(run_states.RUNNING)

# All statements are made once and know only tables: to make one, or to go through the session, takes longer than to run
# it.
_RUNS, _ATTEMPTS, _EVENTS = (cast("Table", row.__table__) for row in (RunRow, AttemptRow, EventRow))
_RUN, _ATTEMPT = _RUNS.c, _ATTEMPTS.c
_CHOSEN = _RUN.id.in_(bindparam("runs", expanding=True))
_READ_RUNS = (
    select(
        _RUN.id,
        _RUN.state,
        _RUN.attempts,
        _RUN.reason,
        _RUN.message,
        _RUN.last_sequence,
        _RUN.cancel_requested,
        _RUN.started_at,
    )
    .where(_CHOSEN)
    .order_by(_RUN.id)
    .with_for_update()
)
# Read after the runs are locked, and not with them: with PostgreSQL, what is joined to a locked row may be older than
# the lock.
_READ_ATTEMPTS = select(
    _ATTEMPT.run_id, _ATTEMPT.state, _ATTEMPT.last_sequence, _ATTEMPT.ended_at, _ATTEMPT.trainer
).where(_CHOSEN, _RUN.id == _ATTEMPT.run_id, _RUN.attempts == _ATTEMPT.number)
_ADD_EVENTS = insert(_EVENTS)
_THIS_RUN = update(_RUNS).where(_RUN.id == bindparam("run"))
_THIS_ATTEMPT = update(_ATTEMPTS).where(
    _ATTEMPT.run_id == bindparam("run"), _ATTEMPT.number == bindparam("attempt_number")
)
_SET_RUN = _THIS_RUN.values(
    last_sequence=bindparam("newest"),
    message=bindparam("said", type_=Sentence()),
    progress=func.coalesce(bindparam("steps", type_=LargeBinary()), _RUN.progress),
    validation=func.coalesce(bindparam("scores", type_=LargeBinary()), _RUN.validation),
)
# Apart, because it hardly ever happens.
_RESIZE_RUN = _THIS_RUN.values(nodes=bindparam("left"))
_RESIZE_ATTEMPT = _THIS_ATTEMPT.values(nodes=bindparam("left"))
_SET_ATTEMPT = _THIS_ATTEMPT.values(last_sequence=bindparam("stored"), trainer=bindparam("asked"))
# Apart from `_SET_RUN`, because the state is part of three indexes.
_BEGIN_RUN = _THIS_RUN.values(state=_RUNNING, started_at=bindparam("since", type_=UtcTime()))
_BEGIN_ATTEMPT = _THIS_ATTEMPT.values(state=_RUNNING)


@dataclass(kw_only=True)
class ReportedRun:
    """A run with its newest attempt, and what becomes of them."""

    id: str
    state: str
    attempts: int
    reason: str
    message: str
    last_sequence: int
    cancel_requested: bool
    started_at: datetime | None
    attempt_state: str
    stored: int
    """Sequence number of the trainer's newest stored event."""
    over: bool
    """Whether the attempt has ended."""
    trainer: str
    """Address of the trainer that was last asked to start the attempt."""
    changed: bool = False
    progress: bytes | None = None
    validation: bytes | None = None
    began: bool = False
    nodes: int | None = None
    """How many nodes the attempt has from now on; None: as many as before."""
    events: list[dict[str, Any]] = field(default_factory=list)

    def under_way(self, number: int) -> bool:
        """Whether the attempt of a number goes on."""
        return self.attempts == number and not self.over

    def ask(self, number: int, trainer: str) -> None:
        """Take note of the trainer that is about to be asked to start an attempt; raises Aborted if that is over."""
        if not self.under_way(number):
            raise Aborted(f"Attempt {number} of run {self.id} is over already.")
        self.changed = self.changed or self.trainer != trainer
        self.trainer = trainer

    def resize(self, number: int, nodes: int, message: str) -> None:
        """Take how many nodes an attempt that has not begun goes on with; raises Aborted if it is over or has begun."""
        if not self.under_way(number) or self.state != _STARTING:
            raise Aborted(f"Attempt {number} of run {self.id} does not wait any more.")
        self.nodes = nodes
        if not self.cancel_requested:
            self.message = message
        self._add_event(None)

    def wait(self, number: int, message: str) -> None:
        """Take what an attempt that has not begun to train waits for; a repeated message changes nothing."""
        if not self.under_way(number) or self.state != _STARTING or self.cancel_requested or self.message == message:
            return
        self.message = message
        self._add_event(None)

    def take(self, number: int, event: trainer_pb2.TrainingEvent) -> None:
        """Take an event of an attempt, unless it is stored already or comes too late."""
        if not self.under_way(number) or event.sequence <= self.stored:
            return
        self.stored = event.sequence
        self.progress = progress_of(event) or self.progress
        self.validation = event.SerializeToString() if event.validation else self.validation
        begins = event.state == run_states.RUNNING and self.state != _RUNNING
        if event.state == run_states.RUNNING:
            run_states.check_change(run_states.state_number(self.state), run_states.RUNNING)
            self.began = self.began or begins or self.attempt_state != _RUNNING or self.started_at is None
            self.state = self.attempt_state = _RUNNING
            self.started_at = self.started_at or now()
        # What a training says, such as that it waits for the store, stands until it says something else.
        if (begins or event.message) and not self.cancel_requested:
            self.message = event.message
        self._add_event(event)

    def _add_event(self, training: trainer_pb2.TrainingEvent | None) -> None:
        self.last_sequence += 1
        self.events.append(event_values(self, training))
        self.changed = True


def progress_of(event: trainer_pb2.TrainingEvent) -> bytes:
    """Return what a run keeps of an event that reports steps, serialized; empty for any other event."""
    if not event.total_steps:
        return b""
    if not event.log_lines:
        return event.SerializeToString()
    shown = trainer_pb2.TrainingEvent()
    shown.CopyFrom(event)
    shown.ClearField("log_lines")
    return shown.SerializeToString()


def read_runs(connection: Connection, run_ids: Sequence[str]) -> dict[str, ReportedRun]:
    """Lock some runs and return them with their newest attempts."""
    rows = connection.execute(_READ_RUNS, {"runs": run_ids}).all()
    newest = {row.run_id: row for row in connection.execute(_READ_ATTEMPTS, {"runs": run_ids})}
    return {
        row.id: ReportedRun(
            **row._mapping,
            attempt_state=newest[row.id].state,
            stored=newest[row.id].last_sequence,
            over=newest[row.id].ended_at is not None,
            trainer=newest[row.id].trainer,
        )
        for row in rows
        if row.id in newest
    }


def write_runs(connection: Connection, runs: Sequence[ReportedRun]) -> None:
    """Write what was reported of runs, those that have changed."""
    if not runs:
        return
    if events := [event for run in runs for event in run.events]:
        connection.execute(_ADD_EVENTS, events)
    connection.execute(
        _SET_RUN,
        [
            {
                "run": run.id,
                "newest": run.last_sequence,
                "said": run.message,
                "steps": run.progress,
                "scores": run.validation,
            }
            for run in runs
        ],
    )
    connection.execute(
        _SET_ATTEMPT,
        [{"run": run.id, "attempt_number": run.attempts, "stored": run.stored, "asked": run.trainer} for run in runs],
    )
    if resized := [run for run in runs if run.nodes is not None]:
        connection.execute(_RESIZE_RUN, [{"run": run.id, "left": run.nodes} for run in resized])
        connection.execute(
            _RESIZE_ATTEMPT,
            [{"run": run.id, "attempt_number": run.attempts, "left": run.nodes} for run in resized],
        )
    begun = [run for run in runs if run.began]
    if begun:
        connection.execute(_BEGIN_RUN, [{"run": run.id, "since": run.started_at} for run in begun])
        connection.execute(_BEGIN_ATTEMPT, [{"run": run.id, "attempt_number": run.attempts} for run in begun])
