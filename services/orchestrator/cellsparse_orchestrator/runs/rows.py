"""Rows of runs and attempts: find them, and convert them to protos and dataclasses."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from google.protobuf import json_format
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.caller import visible
from cellsparse_orchestrator.clock import optional_timestamp, timestamp
from cellsparse_orchestrator.db.tables import AttemptRow, RunRow
from cellsparse_orchestrator.runs.sizes import asked
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

_QUEUED = run_states.state_name(run_states.QUEUED)
_ACTIVE = [run_states.state_name(state) for state in run_states.ACTIVE]
_STORAGE = run_states.reason_name(common_pb2.FAILURE_REASON_STORAGE)


@dataclass(frozen=True, kw_only=True)
class RunAttempt:
    """One attempt of a run: what its trainer needs to know, and how much of it is stored."""

    run_id: str
    number: int
    backend: str
    dataset_id: str
    settings: trainer_pb2.TrainingSettings
    project_id: str | None = None
    """The project that the run belongs to; None: none."""
    last_sequence: int = 0
    """Sequence number of the trainer's newest stored event."""
    trainer: str = ""
    """Address of the trainer that was last asked to start it; empty: none yet."""
    secret: str = field(default="", repr=False)
    """What the processes of its nodes know each other by, hexadecimal; empty: an attempt from before there were any."""
    nodes: int = 0
    """Nodes that it has, or waits for; 0: as many as the settings say."""
    min_nodes: int = 0
    """Fewest nodes that it may begin with if no more can be had; 0: all."""

    @property
    def has_fewer(self) -> bool:
        """Whether it has fewer nodes than its run asks for."""
        return 0 < self.nodes < asked(self.settings)


@dataclass(frozen=True, kw_only=True)
class UnfinishedRun:
    """A run that has not ended."""

    run_id: str
    state: int
    attempts: int
    max_attempts: int
    interruptions: int
    cancel_requested: bool
    retry_at: datetime | None
    reason: str = ""
    """Why the attempt before failed, while the run is RETRYING."""

    @property
    def gave_up_its_slot(self) -> bool:
        """Whether the run waits without a slot: nobody knows for how long the store's fault lasts."""
        return self.state == run_states.RETRYING and self.reason == _STORAGE


def find_run(session: Session, run_id: str, *, lock: bool = False) -> RunRow:
    """Return a run's row; with `lock`, locked until the transaction ends. Raises NotFound."""
    query = select(RunRow).where(RunRow.id == run_id, visible(RunRow))
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"There is no run {run_id!r}.")
    return row


def find_attempt(session: Session, row: RunRow) -> AttemptRow:
    """Return the row of a run's newest attempt."""
    return session.get_one(AttemptRow, (row.id, row.attempts))


def to_attempt(row: RunRow, attempt: AttemptRow) -> RunAttempt:
    """Return an attempt."""
    return RunAttempt(
        run_id=row.id,
        number=attempt.number,
        backend=row.backend,
        dataset_id=row.dataset_id,
        settings=parse_settings(row.settings),
        project_id=row.project_id,
        last_sequence=attempt.last_sequence,
        trainer=attempt.trainer,
        secret=attempt.secret,
        nodes=attempt.nodes,
        min_nodes=attempt.min_nodes,
    )


def to_unfinished(rows: Iterable[Any]) -> list[UnfinishedRun]:
    """Return rows with the columns of `UnfinishedRun` as such."""
    return [
        UnfinishedRun(
            run_id=row.id,
            state=run_states.state_number(row.state),
            attempts=row.attempts,
            max_attempts=row.max_attempts,
            interruptions=row.interruptions,
            cancel_requested=row.cancel_requested,
            retry_at=row.retry_at,
            reason=row.reason,
        )
        for row in rows
    ]


class QueueView:
    """Some runs as one transaction sees them, with the queue around them.

    However many runs there are, the queue is counted once, because that takes long in a long queue.

    Args:
        session: The transaction.
        rows: The runs.
        waiting: What the whole queue waits for; empty: only for runs that are ahead.
    """

    def __init__(self, session: Session, rows: Iterable[RunRow], waiting: str = "") -> None:
        queued = [row for row in rows if row.state == _QUEUED]
        self._waiting = waiting
        self._positions = queue_positions(session, queued)
        self._active = 0
        if queued and not waiting:
            self._active = session.scalar(select(func.count()).where(RunRow.state.in_(_ACTIVE))) or 0

    def message(self, row: RunRow) -> str:
        """Say what a queued run waits for."""
        if self._waiting:
            return self._waiting
        return waiting_message(self._active + self._positions[row.number] - 1)

    def to_proto(self, row: RunRow) -> orchestrator_pb2.Run:
        """Return a run as clients see it."""
        queued = row.state == _QUEUED
        return orchestrator_pb2.Run(
            id=row.id,
            name=row.name,
            backend=row.backend,
            dataset_id=row.dataset_id,
            settings=parse_settings(row.settings),
            state=run_states.state_number(row.state),
            reason=run_states.reason_number(row.reason),
            message=self.message(row) if queued else row.message,
            attempts=row.attempts,
            max_attempts=row.max_attempts,
            priority=row.priority,
            created_at=timestamp(row.created_at),
            started_at=optional_timestamp(row.started_at),
            ended_at=optional_timestamp(row.ended_at),
            progress=trainer_pb2.TrainingEvent.FromString(row.progress) if row.progress else None,
            queue_position=self._positions[row.number] if queued else 0,
            nodes=row.nodes,
        )


def waiting_message(ahead: int) -> str:
    """Say what a queued run waits for, with a number of runs ahead of it."""
    return f"waiting: {ahead} run{'s' if ahead > 1 else ''} ahead" if ahead else "waiting: next to start"


def queue_positions(session: Session, rows: Sequence[RunRow]) -> dict[int, int]:
    """Return the positions of queued runs by their number, from 1: those of higher priority go first, then older ones.

    The queue of each priority is cut where these runs stand, and each piece is counted once.
    """
    if not rows:
        return {}
    lowest = min(row.priority for row in rows)
    above = select(RunRow.priority, func.count()).where(RunRow.state == _QUEUED, RunRow.priority > lowest)
    sizes = session.execute(above.group_by(RunRow.priority)).tuples().all()
    begin = func.lag(RunRow.number, 1, 0).over(partition_by=RunRow.priority, order_by=RunRow.number)
    ours = RunRow.number.in_([row.number for row in rows])
    cuts = select(RunRow.priority, RunRow.number, begin.label("begin")).where(ours).cte("cuts").c
    inside = (RunRow.priority == cuts.priority, RunRow.number >= cuts.begin, RunRow.number < cuts.number)
    piece = select(func.count()).where(RunRow.state == _QUEUED, *inside).scalar_subquery()
    pieces = session.execute(select(cuts.priority, cuts.number, piece).order_by(cuts.number)).tuples()
    positions: dict[int, int] = {}
    ahead: dict[int, int] = {}
    for priority, number, size in pieces:
        if priority not in ahead:
            ahead[priority] = sum(size for other, size in sizes if other > priority)
        ahead[priority] += size
        positions[number] = 1 + ahead[priority]
    return positions


def parse_settings(text: str) -> trainer_pb2.TrainingSettings:
    """Return the training settings stored in a run's row."""
    return trainer_pb2.TrainingSettings.FromString(_serialized_settings(text))


@lru_cache(1024)
def _serialized_settings(text: str) -> bytes:
    """Many runs have the same settings, and reading JSON takes long in a list."""
    return json_format.Parse(text, trainer_pb2.TrainingSettings(), ignore_unknown_fields=True).SerializeToString()
