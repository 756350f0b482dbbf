"""Runs: a handle that waits, and a watch that survives a restart of the orchestrator."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cellsparse import enum_names
from cellsparse.connection import Connection
from cellsparse.errors import RunFailedError
from cellsparse.reconnect import ASK_SECONDS, PATIENCE_SECONDS, STREAM_SECONDS, OnLost, reconnecting
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

FINAL = frozenset({common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_FAILED, common_pb2.RUN_STATE_CANCELLED})


@dataclass(frozen=True)
class Run:
    """Handle of a run."""

    id: str
    """The run's id, which is also its model's id."""
    connection: Connection = field(repr=False, compare=False)
    """Connection to its orchestrator."""

    def info(self) -> orchestrator_pb2.Run:
        """Return the current state of the run."""
        return get(self.connection, self.id)

    def watch(self, after: int = 0) -> Iterator[orchestrator_pb2.RunEvent]:
        """Yield the run's events until it has ended (see `cellsparse.Client.watch`)."""
        return watch(self.connection, self.id, after)

    def wait(self) -> orchestrator_pb2.Run:
        """Wait until the run has ended.

        Returns:
            The run, SUCCEEDED.

        Raises:
            RunFailedError: It failed or was cancelled. The message gives the reason.
        """
        for _ in self.watch():
            pass
        run = self.info()
        if run.state != common_pb2.RUN_STATE_SUCCEEDED:
            raise RunFailedError(
                f"Run {run.id} {enum_names.name(common_pb2.RunState.DESCRIPTOR, run.state)}: {run.message}"
            )
        return run

    def cancel(self) -> orchestrator_pb2.Run:
        """Request the cancellation of the run."""
        return cancel(self.connection, self.id)


def get(connection: Connection, run_id: str, *, timeout: float | None = None) -> orchestrator_pb2.Run:
    """Return one run."""
    request = orchestrator_pb2.GetRunRequest(run_id=run_id)
    answer: orchestrator_pb2.GetRunResponse = connection.call("GetRun", request, timeout=timeout)
    return answer.run


def cancel(connection: Connection, run_id: str) -> orchestrator_pb2.Run:
    """Request the cancellation of a run. A run that has ended does not change."""
    request = orchestrator_pb2.CancelRunRequest(run_id=run_id)
    answer: orchestrator_pb2.CancelRunResponse = connection.call("CancelRun", request)
    return answer.run


def watch(
    connection: Connection,
    run_id: str,
    after: int = 0,
    *,
    patience: float = PATIENCE_SECONDS,
    on_lost: OnLost = lambda *_: None,
    on_back: Callable[[], None] = lambda: None,
) -> Iterator[orchestrator_pb2.RunEvent]:
    """Yield a run's events from after a sequence number until it has ended.

    When the orchestrator disconnects, the call is repeated with growing pauses. No event is repeated or lost.

    Args:
        connection: Connection to the orchestrator of the run.
        run_id: The run.
        after: Sequence number of the last event already seen; 0 for all.
        patience: Seconds without an answer after which to give up.
        on_lost: Called with the error and the seconds left, each time the orchestrator does not answer.
        on_back: Called when it answers again.

    Raises:
        Unavailable: It did not answer for `patience` seconds.
        NotFound: There is no such run.
    """
    seen = after

    def events() -> Iterator[orchestrator_pb2.RunEvent]:
        nonlocal seen
        request = orchestrator_pb2.WatchRunRequest(run_id=run_id, after_sequence=seen)
        for answer in connection.stream("WatchRun", request, timeout=STREAM_SECONDS):
            seen = answer.event.sequence
            yield answer.event

    def ended() -> bool:
        return get(connection, run_id, timeout=ASK_SECONDS).state in FINAL

    return reconnecting(connection, events, ended, patience=patience, on_lost=on_lost, on_back=on_back)
