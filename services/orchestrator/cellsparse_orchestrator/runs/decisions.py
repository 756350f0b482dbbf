"""Decide what to do next with one run: a pure function of the facts known about it."""

from dataclasses import dataclass
from enum import Enum, auto

from cellsparse_orchestrator import run_states
from cellsparse_proto.v1 import common_pb2, trainer_pb2


class Action(Enum):
    """A step of the reconciler."""

    WAIT = auto()
    """Nothing to do now."""
    BEGIN = auto()
    """Record the next attempt, then watch it."""
    WATCH = auto()
    """Watch the newest attempt: start it at its trainer if necessary, and store its events."""
    STOP = auto()
    """Ask the trainer to end the attempt."""
    RETRY = auto()
    """End the attempt; another one begins after a pause."""
    END = auto()
    """End the run."""


@dataclass(frozen=True, kw_only=True)
class AttemptOutcome:
    """How an attempt ended."""

    state: int
    """SUCCEEDED, FAILED or CANCELLED (proto `RunState`)."""
    reason: int = common_pb2.FAILURE_REASON_UNSPECIFIED
    """Why, when FAILED (proto `FailureReason`)."""
    message: str = ""
    """A sentence for people."""
    damaged: bool = False
    """STORAGE: the store answers, but an object in it is missing or damaged, so that waiting does not help."""
    preempted: bool = False
    """A queue of the cluster gave its place to another training, which is no fault of this one."""
    event: trainer_pb2.TrainingEvent | None = None
    """The trainer's last event, not stored yet; None if the trainer did not send one."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a run."""

    state: int
    """Proto `RunState`."""
    attempts: int = 0
    """Attempts begun."""
    max_attempts: int = 1
    interruptions: int = 0
    """Attempts ended by an orderly shutdown, an outage of the store or a queue; they do not count against
    `max_attempts`."""
    cancel_requested: bool = False
    slot_free: bool = False
    """QUEUED: a slot is free and this run is next."""
    pause_over: bool = False
    """RETRYING: the pause before the next attempt is over, and the run has a slot."""
    store_ready: bool = True
    """QUEUED and RETRYING: the store answers."""
    watched: bool = False
    """A watcher follows the newest attempt."""
    stopping: bool = False
    """The trainer has been asked to end the newest attempt."""
    has_fewer: bool = False
    """The newest attempt has fewer nodes than the run asks for."""
    outcome: AttemptOutcome | None = None
    """How the newest attempt ended; None while it goes on."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do with a run."""

    action: Action
    state: int = common_pb2.RUN_STATE_UNSPECIFIED
    """The run's next state, for RETRY and END."""
    counts: bool = True
    """Whether the attempt counts against `max_attempts`, for RETRY."""
    in_queue: bool = False
    """Whether a queue of the cluster, not a pause, decides when the next attempt trains, for RETRY."""
    reason: int = common_pb2.FAILURE_REASON_UNSPECIFIED
    message: str = ""


_WAIT = Decision(action=Action.WAIT)


def decide(facts: Facts) -> Decision:
    """Return the next step of a run."""
    if facts.state in run_states.FINAL:
        return _WAIT
    if facts.outcome is not None and facts.state in (run_states.STARTING, run_states.RUNNING):
        return _after_attempt(facts, facts.outcome)
    if facts.state in (run_states.QUEUED, run_states.RETRYING):
        if facts.cancel_requested:
            return Decision(action=Action.END, state=run_states.CANCELLED, message="Cancelled.")
        ready = facts.slot_free if facts.state == run_states.QUEUED else facts.pause_over
        return Decision(action=Action.BEGIN) if ready and facts.store_ready else _WAIT
    if not facts.watched:
        return Decision(action=Action.WATCH)
    if facts.cancel_requested and not facts.stopping:
        return Decision(action=Action.STOP)
    return _WAIT


def _after_attempt(facts: Facts, outcome: AttemptOutcome) -> Decision:
    if outcome.state == run_states.SUCCEEDED:
        return Decision(action=Action.END, state=run_states.SUCCEEDED, message=outcome.message)
    if facts.cancel_requested:
        return Decision(action=Action.END, state=run_states.CANCELLED, message="Cancelled.")
    reason, message = outcome.reason, outcome.message
    if outcome.state == run_states.CANCELLED:
        # We did not ask for it, so somebody else ended the trainer.
        reason = common_pb2.FAILURE_REASON_LOST
        message = message or "The trainer ended the attempt without being asked to."
    if outcome.preempted or (reason == common_pb2.FAILURE_REASON_STORAGE and not outcome.damaged):
        # However long the store is away, and however often others need the place, that is no fault of the run.
        return Decision(
            action=Action.RETRY,
            state=run_states.RETRYING,
            reason=reason,
            message=message,
            counts=False,
            in_queue=outcome.preempted,
        )
    failures = facts.attempts - facts.interruptions
    small = facts.has_fewer and reason == common_pb2.FAILURE_REASON_OUT_OF_MEMORY
    if small:
        message = f"{message} It had fewer nodes than the run asks for; the next attempt has more.".strip()
    if reason not in run_states.RETRIED and not small:
        return Decision(action=Action.END, state=run_states.FAILED, reason=reason, message=message)
    if failures >= facts.max_attempts:
        return Decision(
            action=Action.END,
            state=run_states.FAILED,
            reason=reason,
            message=f"{message} This was attempt {failures} of {facts.max_attempts}.".strip(),
        )
    return Decision(action=Action.RETRY, state=run_states.RETRYING, reason=reason, message=message)
