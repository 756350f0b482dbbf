"""The tables of studies and members from the reconciler's side; every change is one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.catalogue.limits import RunsAllowed, runs_allowed
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import (
    AttemptRow,
    DatasetRow,
    EventRow,
    ModelRow,
    RunRow,
    StudyMemberRow,
    StudyRow,
)
from cellsparse_orchestrator.notifier import STUDIES, Notifier
from cellsparse_orchestrator.runs.rows import parse_settings
from cellsparse_orchestrator.studies import states
from cellsparse_orchestrator.studies.decisions import Facts, TrainingMember, WaitingMember
from cellsparse_orchestrator.studies.rows import change_member, find_member, find_study, to_member, to_study
from cellsparse_proto.v1 import common_pb2, study_pb2, trainer_pb2

_UNFINISHED = [states.study_name(state) for state in (states.RUNNING, states.PAUSED, states.CANCELLING)]
_WAITING, _TRAINING, _EVALUATING = (
    states.member_name(state) for state in (states.MEMBER_WAITING, states.MEMBER_TRAINING, states.MEMBER_EVALUATING)
)
Change = Callable[[study_pb2.StudyMember], None]


@dataclass(frozen=True, kw_only=True)
class MemberTask:
    """A member with everything that its actions need."""

    study: study_pb2.Study
    member: study_pb2.StudyMember
    settings: trainer_pb2.TrainingSettings


class StudyTransitions:
    """Moves members from state to state."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier

    def unfinished(self) -> list[str]:
        """Return the ids of the studies that have not ended, oldest first."""
        query = select(StudyRow.id).where(StudyRow.state.in_(_UNFINISHED)).order_by(StudyRow.number)
        with self._database.read() as session:
            return list(session.scalars(query))

    def facts(self, study_id: str, most_waiting: int) -> Facts:
        """Return the facts known about a study.

        Args:
            study_id: The study.
            most_waiting: Most waiting members to return.
        """
        with self._database.read() as session:
            study = find_study(session, study_id)
            evaluating = select(StudyMemberRow.number).where(*_of(study_id, _EVALUATING))
            return Facts(
                state=states.study_number(study.state),
                waiting=_waiting(session, study_id, most_waiting),
                training=_training(session, study_id),
                evaluating=list(session.scalars(evaluating.order_by(StudyMemberRow.number))),
            )

    def runs_allowed(self, study_id: str) -> RunsAllowed:
        """Return how many more runs the project of a study may begin now."""
        with self._database.read() as session:
            return runs_allowed(session, find_study(session, study_id).project_id)

    def say(self, study_id: str, message: str) -> None:
        """Tell what a study waits for; empty: nothing."""
        with self._database.write() as session:
            row = find_study(session, study_id, lock=True)
            if row.state not in _UNFINISHED or row.message == message:
                return
            row.message = message
            row.sequence += 1
        self._notify(study_id)

    def task(self, study_id: str, number: int) -> MemberTask:
        """Return a member with its study and settings."""
        with self._database.read() as session:
            row = find_member(session, study_id, number)
            study = to_study(session, find_study(session, study_id))
            return MemberTask(study=study, member=to_member(row), settings=parse_settings(row.settings))

    def begin(self, study_id: str, number: int, annotated_cells: int) -> None:
        """Record that a member's run is queued."""

        def begun(member: study_pb2.StudyMember) -> None:
            member.state = states.MEMBER_TRAINING
            member.annotated_cells = annotated_cells

        self._change(study_id, number, begun)

    def conclude_run(self, study_id: str, number: int) -> None:
        """Copy to a member how its run ended and what it cost."""
        with self._database.write() as session:
            study = find_study(session, study_id, lock=True)
            row = find_member(session, study_id, number)
            run = session.scalar(select(RunRow).where(RunRow.id == row.run_id))
            if run is None or run_states.state_number(run.state) not in run_states.FINAL:
                return
            member = to_member(row)
            _copy_run(member, run, training_seconds(session, run.id))
            model = session.scalar(select(ModelRow).where(ModelRow.id == row.run_id))
            if model is not None:
                member.step = model.step
            change_member(study, row, member)
        self._notify(study_id)

    def score(self, study_id: str, number: int, scores: Sequence[common_pb2.MatchingScore]) -> None:
        """Record a member's scores."""

        def scored(member: study_pb2.StudyMember) -> None:
            member.state = states.MEMBER_SUCCEEDED
            member.ClearField("scores")
            member.scores.extend(scores)

        self._change(study_id, number, scored)

    def fail(self, study_id: str, number: int, reason: "common_pb2.FailureReason", message: str) -> None:
        """Record that a member failed."""

        def failed(member: study_pb2.StudyMember) -> None:
            member.state = states.MEMBER_FAILED
            member.reason, member.message = reason, message

        self._change(study_id, number, failed)

    def fail_label_set(self, study_id: str, dataset_id: str, reason: "common_pb2.FailureReason", message: str) -> None:
        """Record that all members of a label set failed, because it cannot be made."""
        waiting = [*_of(study_id, _WAITING), StudyMemberRow.dataset_id == dataset_id]
        with self._database.read() as session:
            numbers = list(session.scalars(select(StudyMemberRow.number).where(*waiting)))
        for number in numbers:
            self.fail(study_id, number, reason, message)

    def cancel_members(self, study_id: str) -> None:
        """Cancel the members that wait or are being scored; a member with a run is cancelled with its run."""
        runs = select(RunRow.id)
        states_of = StudyMemberRow.state.in_([_WAITING, _EVALUATING])
        with self._database.write() as session:
            study = find_study(session, study_id, lock=True)
            query = select(StudyMemberRow).where(StudyMemberRow.study_id == study_id, states_of)
            for row in session.scalars(query.order_by(StudyMemberRow.number)):
                member = to_member(row)
                if row.state == _WAITING and session.scalar(runs.where(RunRow.id == row.run_id)) is not None:
                    continue
                member.message = "Cancelled." if row.state == _WAITING else "Its model is trained, but was not scored."
                member.state = states.MEMBER_CANCELLED
                change_member(study, row, member)
        self._notify(study_id)

    def finish(self, study_id: str, state: int, message: str) -> None:
        """End a study."""
        with self._database.write() as session:
            row = find_study(session, study_id, lock=True)
            if not states.may_change(states.study_number(row.state), state):
                return
            row.state, row.message, row.ended_at = states.study_name(state), message, now()
            row.sequence += 1
        self._notify(study_id)

    def _change(self, study_id: str, number: int, change: Change) -> None:
        with self._database.write() as session:
            study = find_study(session, study_id, lock=True)
            row = find_member(session, study_id, number)
            member = to_member(row)
            change(member)
            change_member(study, row, member)
        self._notify(study_id)

    def _notify(self, study_id: str) -> None:
        self._notifier.notify(study_id)
        self._notifier.notify(STUDIES)


def _of(study_id: str, state: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (StudyMemberRow.study_id == study_id, StudyMemberRow.state == state)


def _waiting(session: Session, study_id: str, most: int) -> list[WaitingMember]:
    query = (
        select(StudyMemberRow.number, StudyMemberRow.dataset_id, DatasetRow.id, RunRow.id)
        .outerjoin(DatasetRow, (DatasetRow.id == StudyMemberRow.dataset_id) & DatasetRow.deleted_at.is_(None))
        .outerjoin(RunRow, RunRow.id == StudyMemberRow.run_id)
        .where(*_of(study_id, _WAITING))
        .order_by(StudyMemberRow.number)
        .limit(most)
    )
    return [
        WaitingMember(number=number, dataset_id=dataset_id, ready=made is not None, has_run=run is not None)
        for number, dataset_id, made, run in session.execute(query).tuples()
    ]


def _training(session: Session, study_id: str) -> list[TrainingMember]:
    query = (
        select(StudyMemberRow.number, RunRow.state, RunRow.cancel_requested)
        .join(RunRow, RunRow.id == StudyMemberRow.run_id)
        .where(*_of(study_id, _TRAINING))
        .order_by(StudyMemberRow.number)
    )
    return [
        TrainingMember(number=number, run_state=run_states.state_number(state), cancel_requested=cancelling)
        for number, state, cancelling in session.execute(query).tuples()
    ]


_AFTER_RUN = {
    run_states.SUCCEEDED: states.MEMBER_EVALUATING,
    run_states.FAILED: states.MEMBER_FAILED,
    run_states.CANCELLED: states.MEMBER_CANCELLED,
}


def training_seconds(session: Session, run_id: str) -> float:
    """Return how long a run's attempts have trained, seconds, without waits and pauses."""
    begun = (
        select(EventRow.attempt, func.min(EventRow.time))
        .where(EventRow.run_id == run_id, EventRow.state == run_states.state_name(run_states.RUNNING))
        .group_by(EventRow.attempt)
    )
    ended = select(AttemptRow.number, AttemptRow.ended_at).where(AttemptRow.run_id == run_id)
    ends = dict(session.execute(ended).tuples().all())
    spans = [(time, ends.get(number)) for number, time in session.execute(begun).tuples()]
    return sum((end - time).total_seconds() for time, end in spans if end is not None)


def _copy_run(member: study_pb2.StudyMember, run: RunRow, seconds: float) -> None:
    """Copy what the report needs from a run that has ended."""
    member.state = _AFTER_RUN[run_states.state_number(run.state)]
    member.reason, member.message = run_states.reason_number(run.reason), run.message
    member.attempts = run.attempts
    if seconds:
        settings = parse_settings(run.settings)
        member.training_seconds = seconds
        member.processes = max(1, settings.nodes) * max(1, settings.processes_per_node)
    if run.progress:
        progress = trainer_pb2.TrainingEvent.FromString(run.progress)
        member.peak_memory_mib, member.device = progress.peak_memory_mib, progress.device
