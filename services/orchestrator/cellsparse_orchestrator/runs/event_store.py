"""Store what trainers report: many events in one transaction, by plain statements.

A thousand trainings report every second. SQLAlchemy's unit of work took most of the time of storing an event
(docs/scale.md), so here the rows are read as tuples, changed in memory, and written by one statement for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, LargeBinary, bindparam, func, insert, select, update

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.group_commit import GroupCommit
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AttemptRow, EventRow, RunRow, Sentence, UtcTime
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.events import event_values
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_proto.v1 import trainer_pb2

_STORE_SECONDS = 60.0
"""Longest wait of an event for those before it."""
_MOST_EVENTS = 400
"""Most events stored in one transaction."""
_RUNNING = run_states.state_name(run_states.RUNNING)

# The newest attempts are read after the runs are locked, and not with them: with PostgreSQL, what is joined to a locked
# row may be older than the lock.
_RUNS = (
    select(
        RunRow.id,
        RunRow.state,
        RunRow.attempts,
        RunRow.reason,
        RunRow.message,
        RunRow.last_sequence,
        RunRow.cancel_requested,
        RunRow.started_at,
    )
    .order_by(RunRow.id)
    .with_for_update()
)
_ATTEMPTS = select(AttemptRow.run_id, AttemptRow.state, AttemptRow.last_sequence, AttemptRow.ended_at).join(
    RunRow, (RunRow.id == AttemptRow.run_id) & (RunRow.attempts == AttemptRow.number)
)
_SET_RUN = (
    update(RunRow.__table__)
    .where(RunRow.id == bindparam("run"))
    .values(
        last_sequence=bindparam("newest"),
        message=bindparam("said", type_=Sentence()),
        progress=func.coalesce(bindparam("steps", type_=LargeBinary()), RunRow.progress),
        validation=func.coalesce(bindparam("scores", type_=LargeBinary()), RunRow.validation),
    )
)
_SET_ATTEMPT = (
    update(AttemptRow.__table__)
    .where(AttemptRow.run_id == bindparam("run"), AttemptRow.number == bindparam("attempt"))
    .values(last_sequence=bindparam("stored"))
)
# Apart from `_SET_RUN`, because the state is part of three indexes.
_BEGIN_RUN = (
    update(RunRow.__table__)
    .where(RunRow.id == bindparam("run"))
    .values(state=_RUNNING, started_at=bindparam("since", type_=UtcTime()))
)
_BEGIN_ATTEMPT = (
    update(AttemptRow.__table__)
    .where(AttemptRow.run_id == bindparam("run"), AttemptRow.number == bindparam("attempt"))
    .values(state=_RUNNING)
)

ReportedEvent = tuple[RunAttempt, trainer_pb2.TrainingEvent]


@dataclass(kw_only=True)
class _Run:
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
    progress: bytes | None = None
    validation: bytes | None = None
    began: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)

    def take(self, attempt: RunAttempt, event: trainer_pb2.TrainingEvent) -> None:
        """Take an event, unless it is stored already or comes too late."""
        if self.attempts != attempt.number or self.over or event.sequence <= self.stored:
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
        self.last_sequence += 1
        self.events.append(event_values(self, event))


class EventStore:
    """Stores events of trainers.

    Args:
        database: Where.
        notifier: Is told of runs with new events.
    """

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        self._group = GroupCommit(self._store, _MOST_EVENTS)

    def store(self, attempt: RunAttempt, event: trainer_pb2.TrainingEvent) -> None:
        """Store an event that does not end the attempt; one that is stored already changes nothing.

        Raises:
            NotFound: There is no such run.
            Unavailable: The database does not answer, or not in time.
        """
        self._group.submit((attempt, event), _STORE_SECONDS)

    def _store(self, reported: Sequence[ReportedEvent]) -> None:
        """Store events of several attempts in one transaction."""
        run_ids = sorted({attempt.run_id for attempt, _ in reported})
        with self._database.write() as session:
            connection = session.connection()
            runs = _read(connection, run_ids)
            for attempt, event in reported:
                run = runs.get(attempt.run_id)
                if run is None:
                    raise NotFound(f"There is no run {attempt.run_id!r}.")
                run.take(attempt, event)
            _write(connection, [run for run in runs.values() if run.events])
        self._notifier.notify(*run_ids)


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


def _read(connection: Connection, run_ids: Sequence[str]) -> dict[str, _Run]:
    """Lock some runs and return them with their newest attempts."""
    rows = connection.execute(_RUNS.where(RunRow.id.in_(run_ids))).all()
    newest = {row.run_id: row for row in connection.execute(_ATTEMPTS.where(RunRow.id.in_(run_ids)))}
    return {
        row.id: _Run(
            **row._mapping,
            attempt_state=newest[row.id].state,
            stored=newest[row.id].last_sequence,
            over=newest[row.id].ended_at is not None,
        )
        for row in rows
        if row.id in newest
    }


def _write(connection: Connection, runs: Sequence[_Run]) -> None:
    """Write the events that runs have taken, and what these changed."""
    if not runs:
        return
    connection.execute(insert(EventRow.__table__), [event for run in runs for event in run.events])
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
    connection.execute(_SET_ATTEMPT, [{"run": run.id, "attempt": run.attempts, "stored": run.stored} for run in runs])
    begun = [run for run in runs if run.began]
    if begun:
        connection.execute(_BEGIN_RUN, [{"run": run.id, "since": run.started_at} for run in begun])
        connection.execute(_BEGIN_ATTEMPT, [{"run": run.id, "attempt": run.attempts} for run in begun])
