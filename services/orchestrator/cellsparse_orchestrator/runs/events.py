"""What happened to a run: rows numbered 1, 2, 3, ... within the run, and a bell for those who wait for the next one."""

import threading

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.db.tables import EventRow, RunRow
from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2


class Notifier:
    """Wakes threads that wait for news; a ring that nobody waits for is not lost.

    Args:
        most_topics: Topics whose last ring is remembered. Of others it is only known that they may have been rung: now
            and then, who waits for one looks for nothing.
    """

    def __init__(self, most_topics: int = 10_000) -> None:
        self._condition = threading.Condition()
        self._most = most_topics
        self._number = 0
        self._last: dict[str, int] = {}
        """Number of the last ring by topic, in the order of these numbers."""
        self._forgotten = 0
        """Number of the newest ring of a topic that is not remembered any more."""
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the service is ending and nobody should wait any more."""
        return self._closed

    def version(self, topic: str) -> int:
        """Return which ring was the topic's last; read it before looking for news, and give it to `wait`."""
        with self._condition:
            return self._last.get(topic, self._forgotten)

    def notify(self, *topics: str) -> None:
        """Say that there is news on topics (run ids, or any other names)."""
        with self._condition:
            for topic in topics:
                self._number += 1
                self._last.pop(topic, None)
                self._last[topic] = self._number
            if len(self._last) > self._most:
                # Half of them at once: whoever waits for a forgotten one wakes each time.
                for topic in list(self._last)[: len(self._last) // 2]:
                    self._forgotten = self._last.pop(topic)
            self._condition.notify_all()

    def wait(self, topic: str, seen: int, seconds: float) -> None:
        """Return when the topic may have been rung after ring `seen`, the bell is closed, or the time is over."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._last.get(topic, self._forgotten) != seen, seconds)

    def close(self) -> None:
        """Wake everybody for good."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


def add_event(session: Session, run: RunRow, training: trainer_pb2.TrainingEvent | None = None) -> None:
    """Write down where a run stands now, as its next event.

    Args:
        session: The transaction that changed the run.
        run: The run with its new state, reason and message.
        training: What the trainer reported, if this comes from a trainer.
    """
    run.last_sequence += 1
    own = training is None
    session.add(
        EventRow(
            run_id=run.id,
            sequence=run.last_sequence,
            time=now(),
            state=run.state,
            attempt=run.attempts,
            reason=run.reason,
            message=run.message if own or run.state in _WITH_MESSAGE else "",
            training=None if training is None else training.SerializeToString(),
        )
    )


def read_events(session: Session, run_id: str, after: int, most: int) -> list[orchestrator_pb2.RunEvent]:
    """Return a run's events with a larger sequence number than `after`, in order, at most `most`."""
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
