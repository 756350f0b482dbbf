"""The table of runs from the reconciler's side; every change and its event are one transaction."""

import secrets
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry
from sqlalchemy import and_, func, not_, select
from sqlalchemy.orm import Session, defer

from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.catalogue.models import add_model
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AttemptRow, RunRow
from cellsparse_orchestrator.notifier import RECONCILER, STUDIES, Notifier
from cellsparse_orchestrator.runs.attempt_reports import AttemptReports
from cellsparse_orchestrator.runs.decisions import Action, AttemptOutcome, Decision
from cellsparse_orchestrator.runs.events import add_event
from cellsparse_orchestrator.runs.metrics import RunMetrics
from cellsparse_orchestrator.runs.reported_runs import progress_of
from cellsparse_orchestrator.runs.rows import (
    RunAttempt,
    UnfinishedRun,
    find_attempt,
    find_run,
    parse_settings,
    to_attempt,
    to_unfinished,
)
from cellsparse_orchestrator.runs.sizes import asked, find_fewest
from cellsparse_proto.v1 import common_pb2, trainer_pb2

_SECRET_BYTES = 32
_QUEUED = run_states.state_name(run_states.QUEUED)
_ACTIVE = [run_states.state_name(state) for state in run_states.ACTIVE]
# Not whole rows: settings and progress are large, and thousands of runs are read every second.
_UNFINISHED = select(
    RunRow.id,
    RunRow.state,
    RunRow.attempts,
    RunRow.max_attempts,
    RunRow.interruptions,
    RunRow.cancel_requested,
    RunRow.retry_at,
    RunRow.reason,
)

# Runs to change, without the large columns that a change does not read. Rows are locked in one order for all.
_TO_END = select(RunRow).order_by(RunRow.id).with_for_update()
_TO_BEGIN = _TO_END.options(*(defer(column, raiseload=True) for column in (RunRow.progress, RunRow.validation)))
_NEWEST = select(AttemptRow).join(RunRow, (RunRow.id == AttemptRow.run_id) & (RunRow.attempts == AttemptRow.number))
_GOING = tuple(run_states.state_name(state) for state in (run_states.STARTING, run_states.RUNNING))
_RETRYING = run_states.state_name(run_states.RETRYING)
_STORAGE = run_states.reason_name(common_pb2.FAILURE_REASON_STORAGE)
_PAUSING = (_QUEUED, _RETRYING)
# Each count is answered by an index; a count of those that have not given up would read a thousand rows.
_HOLDING = select(
    select(func.count()).where(RunRow.state.in_(_ACTIVE)).scalar_subquery()
    - select(func.count()).where(RunRow.state == _RETRYING, RunRow.reason == _STORAGE).scalar_subquery()
)
_MOST_IDS = 500
"""Most ids in a statement."""


@dataclass(frozen=True, kw_only=True)
class AttemptEnd:
    """The end of a run's newest attempt."""

    run_id: str
    number: int
    """The attempt's."""
    outcome: AttemptOutcome
    """How it ended."""
    decision: Decision
    """RETRY or END, with the run's next state."""
    pause_seconds: float = 0.0
    """Pause before the next attempt, for RETRY."""


class RunTransitions:
    """Moves runs from state to state.

    Attributes:
        metrics: Counters of these changes.
    """

    def __init__(self, database: Database, notifier: Notifier, metrics: RunMetrics | None = None) -> None:
        self._database = database
        self._notifier = notifier
        self._reports = AttemptReports(database, notifier)
        self.metrics = metrics or RunMetrics(CollectorRegistry())

    def confirm_lease(self) -> None:
        """Make sure that no other orchestrator has taken over.

        Raises:
            LeaseLost: One has.
            Unavailable: The database does not answer.
        """
        self._database.confirm_lease()

    def active(self, run_ids: Collection[str] | None = None) -> list[UnfinishedRun]:
        """Return the runs that have begun and not ended, the oldest first; with `run_ids`, only those of these ids."""
        if run_ids is not None and not run_ids:
            return []
        query = _UNFINISHED.where(RunRow.state.in_(_ACTIVE)).order_by(RunRow.number)
        with self._database.read() as session:
            connection = session.connection()  # rows of columns need no session, which would take longer
            if run_ids is None:
                return to_unfinished(connection.execute(query))
            ids = sorted(run_ids)
            parts = [RunRow.id.in_(ids[first : first + _MOST_IDS]) for first in range(0, len(ids), _MOST_IDS)]
            return [run for part in parts for run in to_unfinished(connection.execute(query.where(part)))]

    def count_holding(self) -> int:
        """Return how many runs hold a slot (see `UnfinishedRun.gave_up_its_slot`)."""
        with self._database.read() as session:
            return session.connection().scalar(_HOLDING) or 0

    def under_way(self) -> set[tuple[str, int]]:
        """Return the attempts that have begun and not ended, as (run id, number)."""
        with self._database.read() as session:
            rows = session.connection().execute(select(RunRow.id, RunRow.attempts).where(RunRow.state.in_(_GOING)))
            return {(run_id, number) for run_id, number in rows}

    def unended(self) -> set[str]:
        """Return the runs that have begun an attempt and not ended."""
        with self._database.read() as session:
            return set(session.scalars(select(RunRow.id).where(RunRow.state.in_((*_GOING, _RETRYING)))))

    def next_in_line(
        self, slots: int, but_not: Collection[str] = (), nor: Collection[tuple[str, str | None]] = ()
    ) -> list[UnfinishedRun]:
        """Return the next `slots` queued runs.

        Args:
            slots: How many at most.
            but_not: Backends whose runs are left out.
            nor: Backends and projects (None: none) whose runs are left out.
        """
        if slots <= 0:
            return []
        order = (RunRow.priority.desc(), RunRow.number)
        waiting = [RunRow.state == _QUEUED, RunRow.backend.not_in(but_not)]
        waiting += [
            not_(and_(RunRow.backend == backend, RunRow.project_id.is_not_distinct_from(project)))
            for backend, project in nor
        ]
        query = _UNFINISHED.where(*waiting).order_by(*order).limit(slots)
        with self._database.read() as session:
            return to_unfinished(session.connection().execute(query))

    def begin_attempts(self, run_ids: Sequence[str]) -> list[RunAttempt]:
        """Record the next attempts of some runs in one transaction, before their trainers are asked.

        Returns:
            The attempts in the order of `run_ids`, without those of runs that have just ended.
        """
        begun: dict[str, RunAttempt] = {}
        waited = []
        with self._database.write(urgent=True) as session:
            rows = {row.id: row for row in session.scalars(_TO_BEGIN.where(RunRow.id.in_(run_ids)))}
            for row in (rows[run_id] for run_id in run_ids if run_id in rows):
                if row.state not in _PAUSING:
                    continue
                _move(row, run_states.STARTING)
                row.attempts += 1
                row.reason, row.retry_at = "", None
                row.message = f"Attempt {row.attempts} waits for the {row.backend} trainer."
                settings = parse_settings(row.settings)
                row.nodes = asked(settings)
                attempt = AttemptRow(
                    run_id=row.id,
                    number=row.attempts,
                    state=row.state,
                    last_sequence=0,
                    created_at=now(),
                    secret=secrets.token_hex(_SECRET_BYTES),
                    nodes=row.nodes,
                    min_nodes=find_fewest(session, row.id, settings, row.attempts),
                )
                session.add(attempt)
                add_event(session, row)
                begun[row.id] = to_attempt(row, attempt)
                if attempt.number == 1:
                    waited.append((attempt.created_at - row.created_at).total_seconds())
        for seconds in waited:
            self.metrics.queue.observe(seconds)
        self._notifier.notify(*begun)
        return [begun[run_id] for run_id in run_ids if run_id in begun]

    def newest_attempt(self, run_id: str) -> RunAttempt:
        """Return a run's newest attempt, to be watched from where its stored events end."""
        with self._database.read() as session:
            row = find_run(session, run_id)
            return to_attempt(row, find_attempt(session, row))

    def set_trainer(self, attempt: RunAttempt, address: str) -> int:
        """Record which trainer is about to be asked to start an attempt; return the number of our lease.

        Raises:
            LeaseLost: Another orchestrator has taken over, so that nothing may be started.
        """
        self._reports.asked(attempt, address)
        return self._database.fence

    def set_waiting(self, attempt: RunAttempt, message: str) -> None:
        """Record what an attempt that has not begun to train waits for; a repeated message changes nothing."""
        self._reports.waiting(attempt, message)

    def set_nodes(self, attempt: RunAttempt, nodes: int, message: str) -> None:
        """Record that an attempt that has not begun goes on with fewer nodes, and say why.

        Raises:
            Aborted: The attempt is over.
            LeaseLost: Another orchestrator has taken over.
        """
        self._reports.resized(attempt, nodes, message)

    def set_pausing(self, run_id: str, message: str) -> None:
        """Record why a run that could begin its next attempt does not; a repeated message changes nothing."""
        with self._database.write() as session:
            row = find_run(session, run_id, lock=True)
            if row.state not in _PAUSING or row.message == message:
                return
            row.message = message
            add_event(session, row)
        self._notifier.notify(run_id)

    def known(self, run_ids: Collection[str]) -> set[str]:
        """Return those of some ids that are runs of this database."""
        with self._database.read() as session:
            return set(session.scalars(select(RunRow.id).where(RunRow.id.in_(run_ids))))

    def store_event(self, attempt: RunAttempt, event: trainer_pb2.TrainingEvent) -> "Future[None]":
        """Store a trainer's event that does not end the attempt (see `AttemptReports.event`)."""
        return self._reports.event(attempt, event)

    def end_attempts(self, ends: Sequence[AttemptEnd]) -> None:
        """Record in one transaction how the newest attempts of some runs ended, and what these runs do next."""
        by_run = {end.run_id: end for end in ends}
        with self._database.write(urgent=True) as session:
            found = session.scalars(_TO_END.where(RunRow.id.in_(by_run)))
            rows = [row for row in found if row.state in _GOING and row.attempts == by_run[row.id].number]
            newest = {row.run_id: row for row in session.scalars(_NEWEST.where(RunRow.id.in_(by_run)))}
            ended = [(row.backend, by_run[row.id].outcome) for row in rows]
            for row in rows:
                _end_attempt(session, row, newest[row.id], by_run[row.id])
        for backend, outcome in ended:
            self.metrics.attempt_ended(backend, outcome.state, outcome.reason)
        self._notifier.notify(*by_run, STUDIES)
        if again := [end.run_id for end in ends if end.decision.action is Action.RETRY]:
            self._notifier.tell(RECONCILER, *again)  # their pauses begin now

    def end_run(self, run_id: str, decision: Decision) -> None:
        """End a run without an attempt under way, unless it has just ended."""
        with self._database.write(urgent=True) as session:
            row = find_run(session, run_id, lock=True)
            if run_states.state_number(row.state) in run_states.FINAL:
                return
            _conclude(row, decision, 0.0)
            add_event(session, row)
        self._notifier.notify(run_id)
        self._notifier.notify(STUDIES)

    def interrupt(self, run_id: str, message: str) -> None:
        """End a run's newest attempt in an orderly shutdown; it does not count as a failure."""
        with self._database.write() as session:
            row = find_run(session, run_id, lock=True)
            if row.state not in _GOING:
                return
            attempt = find_attempt(session, row)
            attempt.state, attempt.ended_at = run_states.state_name(run_states.FAILED), now()
            attempt.reason = run_states.reason_name(common_pb2.FAILURE_REASON_EVICTED)
            attempt.message = message
            row.interruptions += 1
            retry = Decision(
                action=Action.RETRY,
                state=run_states.RETRYING,
                reason=common_pb2.FAILURE_REASON_EVICTED,
                message=message,
            )
            _conclude(row, retry, 0.0)
            add_event(session, row)
            backend = row.backend
        self.metrics.attempt_ended(backend, run_states.FAILED, common_pb2.FAILURE_REASON_EVICTED)
        self._notifier.notify(run_id)


def _end_attempt(session: Session, row: RunRow, attempt: AttemptRow, end: AttemptEnd) -> None:
    outcome, decision = end.outcome, end.decision
    if attempt.ended_at is None:
        attempt.state = run_states.state_name(outcome.state)
        attempt.reason, attempt.message = run_states.reason_name(outcome.reason), outcome.message
        attempt.ended_at = now()
    if outcome.event is not None and outcome.event.sequence > attempt.last_sequence:
        _keep_event(row, attempt, outcome.event)
    row.interruptions += decision.action is Action.RETRY and not decision.counts
    _conclude(row, decision, end.pause_seconds)
    add_event(session, row, outcome.event)
    if decision.state == run_states.SUCCEEDED:
        add_model(session, row, outcome.event)


def _move(row: RunRow, state: int) -> None:
    run_states.check_change(run_states.state_number(row.state), state)
    row.state = run_states.state_name(state)


def _conclude(row: RunRow, decision: Decision, pause_seconds: float) -> None:
    """Move a run into the state that was decided on."""
    _move(row, decision.state)
    row.reason = run_states.reason_name(decision.reason)
    row.message = decision.message
    if decision.state in run_states.FINAL:
        row.ended_at, row.retry_at = now(), None
    else:
        row.retry_at = now() + timedelta(seconds=pause_seconds)
        if decision.in_queue:
            return  # the message says what it waits for
        when = f"in {pause_seconds:g} s" if pause_seconds else "as soon as there is a trainer"
        row.message = f"{decision.message} Attempt {row.attempts + 1} begins {when}.".strip()


def _keep_event(row: RunRow, attempt: AttemptRow, event: trainer_pb2.TrainingEvent) -> None:
    """Keep progress and scores of a trainer's event, and that it is stored."""
    attempt.last_sequence = event.sequence
    row.progress = progress_of(event) or row.progress
    if event.validation:
        row.validation = event.SerializeToString()
