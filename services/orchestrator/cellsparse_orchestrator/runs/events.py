"""The events of a run: rows numbered 1, 2, 3, ... within the run."""

from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.db.tables import EventRow, RunRow
from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2


class RunState(Protocol):
    """What an event tells of a run; see `RunRow`."""

    id: Any
    state: Any
    attempts: Any
    reason: Any
    message: Any
    last_sequence: Any


def add_event(session: Session, run: RunRow, training: trainer_pb2.TrainingEvent | None = None) -> None:
    """Record the run's current state as its next event.

    Args:
        session: The transaction that changes the run.
        run: The run with its new state, reason and message.
        training: The trainer's event, if a trainer caused this one.
    """
    run.last_sequence += 1
    session.add(EventRow(**event_values(run, training)))


def event_values(run: RunState, training: trainer_pb2.TrainingEvent | None) -> dict[str, Any]:
    """Return the row of a run's newest event, which has the number `run.last_sequence`.

    Args:
        run: The run with its new state.
        training: The trainer's event, if a trainer caused this one.
    """
    told = training is None or run.state in _WITH_MESSAGE
    return {
        "run_id": run.id,
        "sequence": run.last_sequence,
        "time": now(),
        "state": run.state,
        "attempt": run.attempts,
        "reason": run.reason,
        "message": run.message if told else "",
        "training": None if training is None else training.SerializeToString(),
    }


def read_events(session: Session, run_id: str, after: int, most: int) -> list[orchestrator_pb2.RunEvent]:
    """Return at most `most` events of a run, in order, from the first one after sequence number `after`."""
    query = (
        select(EventRow)
        .where(EventRow.run_id == run_id, EventRow.sequence > after)
        .order_by(EventRow.sequence)
        .limit(most)
    )
    return [_to_proto(row) for row in session.scalars(query)]


_WITH_MESSAGE = frozenset(run_states.state_name(state) for state in (*run_states.FINAL, run_states.RETRYING))


def _to_proto(row: EventRow) -> orchestrator_pb2.RunEvent:
    return orchestrator_pb2.RunEvent(
        sequence=row.sequence,
        time=timestamp(row.time),
        state=run_states.state_number(row.state),
        attempt=row.attempt,
        training=None if row.training is None else trainer_pb2.TrainingEvent.FromString(row.training),
        reason=run_states.reason_number(row.reason),
        message=row.message,
    )
