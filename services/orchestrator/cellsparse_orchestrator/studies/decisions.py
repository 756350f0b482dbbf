"""Decide what to do next for one study: a pure function of the facts known about it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.studies import states


class Action(Enum):
    """A step of a study."""

    SPARSIFY = auto()
    """Make a member's label set."""
    START = auto()
    """Queue a member's run, or adopt the run that exists."""
    CONCLUDE = auto()
    """Copy to a member how its run ended."""
    EVALUATE = auto()
    """Score a member's model."""
    CANCEL_RUN = auto()
    """Request the cancellation of a member's run."""
    CANCEL_MEMBERS = auto()
    """Cancel all members without an unfinished run."""
    FINISH = auto()
    """Write the report and end the study."""


@dataclass(frozen=True, kw_only=True)
class WaitingMember:
    """A member that waits for its run to be queued."""

    number: int
    dataset_id: str
    """Its label set."""
    ready: bool
    """Whether the label set exists."""
    has_run: bool = False
    """Whether the run exists but the member row was not updated, for instance after a crash between the two writes."""


@dataclass(frozen=True, kw_only=True)
class TrainingMember:
    """A member with a run."""

    number: int
    run_state: int
    """Proto `RunState`."""
    cancel_requested: bool = False
    """Whether the run has been asked to end."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a study that has not ended."""

    state: int
    """Proto `StudyState`."""
    waiting: Sequence[WaitingMember] = ()
    """The first waiting members in order; empty only if there is none."""
    training: Sequence[TrainingMember] = ()
    evaluating: Sequence[int] = field(default=())
    """Numbers of the members being scored."""
    starting: frozenset[int] = frozenset()
    """Numbers of the waiting members whose run is just being queued. Read before all else, so that none is missed."""
    allowed: int | None = None
    """Most further runs by the quota of the study's project; None: there is none."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do, and for which member."""

    action: Action
    number: int = 0
    """0 for the study as a whole."""


def decide(facts: Facts, slots: int) -> list[Decision]:
    """Return the next steps of a study.

    Args:
        facts: What is known.
        slots: Most runs that may be queued or training at once. A study never queues more runs than there are slots, so
            a run submitted later waits for one study member, not for the whole study.
    """
    if not (facts.waiting or facts.training or facts.evaluating):
        return [Decision(action=Action.FINISH)]
    steps = [Decision(action=Action.START, number=entry.number) for entry in facts.waiting if entry.has_run]
    steps += [Decision(action=Action.CONCLUDE, number=entry.number) for entry in facts.training if _has_ended(entry)]
    if facts.state == states.CANCELLING:
        going = [entry for entry in facts.training if not (_has_ended(entry) or entry.cancel_requested)]
        steps += [Decision(action=Action.CANCEL_RUN, number=entry.number) for entry in going]
        if facts.waiting or facts.evaluating:
            steps.append(Decision(action=Action.CANCEL_MEMBERS))
        return steps
    steps += [Decision(action=Action.EVALUATE, number=number) for number in facts.evaluating]
    if facts.state == states.RUNNING:
        taken = sum(not _has_ended(entry) for entry in facts.training) + sum(entry.has_run for entry in facts.waiting)
        room = slots - taken if facts.allowed is None else min(slots - taken, facts.allowed)
        steps += _begin([entry for entry in facts.waiting if not entry.has_run], facts.starting, room)
    return steps


def _begin(waiting: Sequence[WaitingMember], starting: frozenset[int], room: int) -> list[Decision]:
    """Start the members whose label sets exist, and make each missing label set once.

    Members that are being started come first, whatever their number: they have taken their room.
    """
    ready = sorted((entry.number for entry in waiting if entry.ready), key=lambda number: number not in starting)
    room = max(room, sum(number in starting for number in ready))  # each is submitted again, to be retried or given up
    missing = {entry.dataset_id: entry.number for entry in reversed(waiting) if not entry.ready}
    return [
        *(Decision(action=Action.START, number=number) for number in ready[:room]),
        *(Decision(action=Action.SPARSIFY, number=number) for number in sorted(missing.values())),
    ]


def _has_ended(entry: TrainingMember) -> bool:
    return entry.run_state in run_states.FINAL
