"""What to do next for one study: a pure function of what is known about it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from cellsparse_orchestrator import run_states as run_states
from cellsparse_orchestrator.studies import states


class Action(Enum):
    """A step of a study."""

    SPARSIFY = auto()
    """Make a member's label set."""
    START = auto()
    """Queue a member's run, or take over the one that is there."""
    CONCLUDE = auto()
    """Take over how a member's run has ended."""
    EVALUATE = auto()
    """Score a member's model."""
    CANCEL_RUN = auto()
    """Ask to cancel a member's run."""
    CANCEL_MEMBERS = auto()
    """Cancel all members without a run that goes on."""
    FINISH = auto()
    """Write the report and end the study."""


@dataclass(frozen=True, kw_only=True)
class WaitingMember:
    """A member whose run was not queued yet."""

    number: int
    dataset_id: str
    """Its label set."""
    ready: bool
    """The label set exists."""
    has_run: bool = False
    """Its run exists: whoever queued it could not write down that the member trains."""


@dataclass(frozen=True, kw_only=True)
class TrainingMember:
    """A member with a run."""

    number: int
    run_state: int
    """Proto `RunState`."""
    cancel_requested: bool = False
    """The run has been asked to end."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a study that has not ended."""

    state: int
    """Proto `StudyState`."""
    waiting: Sequence[WaitingMember] = ()
    """The first waiting members, in their order; empty only if there is none."""
    training: Sequence[TrainingMember] = ()
    evaluating: Sequence[int] = field(default=())
    """Numbers of the members being scored."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to do, and with which member."""

    action: Action
    number: int = 0
    """0 for the study as a whole."""


def decide(facts: Facts, slots: int) -> list[Decision]:
    """Return the next steps of a study.

    Args:
        facts: What is known.
        slots: Most of its runs that may be queued or training at once. No more than train at once are queued, so that a
            single run asked for later waits for those that train, not for the whole study.
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
        steps += _begin([entry for entry in facts.waiting if not entry.has_run], slots - taken)
    return steps


def _begin(waiting: Sequence[WaitingMember], room: int) -> list[Decision]:
    """Start members that can start, and make the label sets of the others, each once."""
    ready = [entry.number for entry in waiting if entry.ready]
    missing = {entry.dataset_id: entry.number for entry in reversed(waiting) if not entry.ready}
    return [
        *(Decision(action=Action.START, number=number) for number in ready[: max(room, 0)]),
        *(Decision(action=Action.SPARSIFY, number=number) for number in sorted(missing.values())),
    ]


def _has_ended(entry: TrainingMember) -> bool:
    return entry.run_state in run_states.FINAL
