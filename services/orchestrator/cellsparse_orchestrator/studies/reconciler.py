"""The reconciler of studies: a loop that reads studies from the database, decides what they need, and acts."""

import logging
import threading
import time
from dataclasses import replace

from cellsparse_common.errors import (
    CellsparseError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    StorageError,
    Unavailable,
)
from cellsparse_orchestrator.catalogue.limits import RunsAllowed
from cellsparse_orchestrator.notifier import STUDIES, Notifier
from cellsparse_orchestrator.studies import states
from cellsparse_orchestrator.studies.actions import MemberActions
from cellsparse_orchestrator.studies.decisions import Action, Decision, decide
from cellsparse_orchestrator.studies.executor import RetryingExecutor
from cellsparse_orchestrator.studies.queries import Studies
from cellsparse_orchestrator.studies.transitions import StudyTransitions
from cellsparse_proto.v1 import common_pb2, study_pb2

_LOG = logging.getLogger(__name__)
_LONGEST_WAIT = 0.5
_REPEAT_SECONDS = 1.0
_END_SECONDS = 10.0
_QUOTA_SECONDS = 2.0
"""How often a quota that is used up is looked at again."""
_AHEAD = 16
"""Label sets are made ahead for this many waiting members while others train."""
_MOST_EVALUATIONS = 4


class StudyReconciler(threading.Thread):
    """Moves all studies to their end.

    Args:
        transitions: Changes studies and members.
        studies: Reads studies and members.
        actions: Carries out the actions of members.
        notifier: Wakes the loop.
        slots: Runs that train at the same time.
    """

    def __init__(
        self, transitions: StudyTransitions, studies: Studies, actions: MemberActions, notifier: Notifier, *, slots: int
    ) -> None:
        super().__init__(name="studies", daemon=True)
        self._transitions = transitions
        self._studies = studies
        self._actions = actions
        self._notifier = notifier
        self._slots = slots
        self._end = threading.Event()
        self._quotas: dict[str, tuple[RunsAllowed | None, float]] = {}
        """By study: what its project's quota allowed, and until when that is taken to hold."""

        def wake() -> None:
            notifier.notify(STUDIES)

        # Sparsify one dataset at a time, because that reads whole datasets. Starts have their own thread, so that
        # they need not wait for it. Every trainer scores one model at a time.
        self._sparsifying = RetryingExecutor("sparsify", 1, wake)
        self._starting = RetryingExecutor("start", 1, wake)
        self._scoring = RetryingExecutor("score", min(slots, _MOST_EVALUATIONS), wake)
        self._finishing = RetryingExecutor("finish", 1, wake)

    def run(self) -> None:
        """Loop until `stop`."""
        while not self._end.is_set():
            seen = self._notifier.version(STUDIES)
            try:
                self.step()
            except CellsparseError as error:
                _LOG.warning("the studies cannot be reconciled now: %s", error.message)
                self._end.wait(_REPEAT_SECONDS)
            self._notifier.wait(STUDIES, seen, _LONGEST_WAIT)

    def stop(self) -> None:
        """End the loop and all actions; a later orchestrator continues from the database. Idempotent."""
        if self._end.is_set():
            return
        self._end.set()
        self._notifier.notify(STUDIES)
        for executor in (self._sparsifying, self._starting, self._scoring, self._finishing):
            executor.stop()
        self._actions.end_calls()
        self.join(_END_SECONDS)

    def step(self) -> None:
        """Reconcile every study that has not ended."""
        for study_id in self._transitions.unfinished():
            try:
                starting = self._starting.begun(study_id)
                facts = self._transitions.facts(study_id, self._slots + _AHEAD)
                waits = facts.state == states.RUNNING and bool(facts.waiting)
                facts = replace(facts, starting=starting, allowed=self._allowed(study_id, waits=waits))
                for decision in decide(facts, self._slots):
                    self._act(study_id, decision)
            except CellsparseError:
                raise  # the database is away: for this study as for all others
            except Exception:  # noqa: BLE001 - logged whole; one study that cannot be handled must not stop the others
                _LOG.exception("study %s cannot be reconciled", study_id)

    def _allowed(self, study_id: str, *, waits: bool) -> int | None:
        """Return how many more runs the quota of the study's project allows; None: any number.

        If members wait for a quota that is used up, the study says so.
        """
        known, until = self._quotas.get(study_id, (None, 0.0))
        if known is not None and waits and time.monotonic() < until:
            return known.count
        allowed = self._transitions.runs_allowed(study_id) if waits else RunsAllowed()
        if known is None or known.refusal != allowed.refusal:
            self._transitions.say(study_id, f"waiting for the quota: {allowed.refusal}" if allowed.refusal else "")
        # One that is used up is looked at less often.
        self._quotas[study_id] = allowed, time.monotonic() + (_QUOTA_SECONDS if allowed.refusal else 0.0)
        return allowed.count

    def _act(self, study_id: str, decision: Decision) -> None:
        if decision.action is Action.CONCLUDE:
            self._transitions.conclude_run(study_id, decision.number)
        elif decision.action is Action.CANCEL_RUN:
            self._actions.cancel_run(self._transitions.task(study_id, decision.number).member.run_id)
        elif decision.action is Action.CANCEL_MEMBERS:
            self._transitions.cancel_members(study_id)
            self._actions.end_calls(study_id)
        elif decision.action is Action.FINISH:
            self._finishing.submit((study_id, 0), lambda: self._finish(study_id))
        else:
            self._begin(study_id, decision)

    def _begin(self, study_id: str, decision: Decision) -> None:
        """Submit a member's next action; the member has failed if the action was given up."""
        executor, action = {
            Action.SPARSIFY: (self._sparsifying, self._actions.sparsify),
            Action.START: (self._starting, self._actions.start),
            Action.EVALUATE: (self._scoring, self._actions.evaluate),
        }[decision.action]
        given_up = executor.submit(
            (study_id, decision.number), lambda: action(self._transitions.task(study_id, decision.number))
        )
        if given_up is None:
            return
        if decision.action is Action.SPARSIFY:
            label_set = self._transitions.task(study_id, decision.number).member.dataset_id
            message = f"Its labels could not be made: {given_up.message}"
            self._transitions.fail_label_set(study_id, label_set, _reason(given_up), message)
        else:
            what = "Its run could not be queued" if decision.action is Action.START else "Its model could not be scored"
            self._transitions.fail(study_id, decision.number, _reason(given_up), f"{what}: {given_up.message}")

    def _finish(self, study_id: str) -> None:
        """Write the report, then end the study, so that every study that has ended has a report."""
        study, members = self._studies.get(study_id), self._studies.members(study_id)
        state, message = _ending(study)
        study.state, study.message = state, message
        self._actions.write_report(study, members)
        self._transitions.finish(study_id, state, message)
        self._forget(study_id)
        _LOG.info("study %s is %s: %s", study_id, states.study_name(state), message)

    def _forget(self, study_id: str) -> None:
        self._quotas.pop(study_id, None)
        for executor in (self._sparsifying, self._starting, self._scoring):
            executor.forget(study_id)


def _ending(study: study_pb2.Study) -> tuple["study_pb2.StudyState", str]:
    """Return the final state of a study whose members have all ended, and a message."""
    counts = f"{study.succeeded} of {study.members} members have scores"
    more = [
        f"{count} {word}" for count, word in ((study.failed, "failed"), (study.cancelled, "were cancelled")) if count
    ]
    message = ", ".join([counts, *more]) + "."
    if study.state == states.CANCELLING:
        return states.CANCELLED, message
    return (states.SUCCEEDED if study.succeeded else states.FAILED), message


def _reason(error: CellsparseError) -> "common_pb2.FailureReason":
    """Return the failure reason that an error means for a member."""
    if isinstance(error, StorageError):
        return common_pb2.FAILURE_REASON_STORAGE
    if isinstance(error, Unavailable):
        return common_pb2.FAILURE_REASON_LOST
    if isinstance(error, (InvalidArgument, NotFound, FailedPrecondition)):
        return common_pb2.FAILURE_REASON_USER_ERROR
    return common_pb2.FAILURE_REASON_INTERNAL
