"""Runs: a handle that waits, and a watch that survives a restart of the orchestrator."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cellsparse import words
from cellsparse.connection import Connection
from cellsparse.errors import CellsparseError, DeadlineExceeded, RunFailedError, Unavailable
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

FINAL = frozenset({common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_FAILED, common_pb2.RUN_STATE_CANCELLED})
PATIENCE_SECONDS = 30.0
STREAM_SECONDS = 3600.0
ASK_SECONDS = 5.0
STEADY_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 4.0

OnLost = Callable[[CellsparseError, float], None]


@dataclass(frozen=True)
class Run:
    """A run that was started: its id, and what to do with it."""

    id: str
    """The run's id, which is also its model's id."""
    connection: Connection = field(repr=False, compare=False)
    """Where it runs."""

    def info(self) -> orchestrator_pb2.Run:
        """Return the run as it stands now."""
        return get(self.connection, self.id)

    def watch(self, after: int = 0) -> Iterator[orchestrator_pb2.RunEvent]:
        """Yield the run's events until it has ended (see `cellsparse.Client.watch`)."""
        return watch(self.connection, self.id, after)

    def wait(self) -> orchestrator_pb2.Run:
        """Wait until the run has ended.

        Returns:
            The run, SUCCEEDED.

        Raises:
            RunFailedError: It failed or was cancelled; the message says why.
        """
        for _ in self.watch():
            pass
        run = self.info()
        if run.state != common_pb2.RUN_STATE_SUCCEEDED:
            raise RunFailedError(f"Run {run.id} {words.word(common_pb2.RunState.DESCRIPTOR, run.state)}: {run.message}")
        return run

    def cancel(self) -> orchestrator_pb2.Run:
        """Ask to cancel the run."""
        return cancel(self.connection, self.id)


def get(connection: Connection, run_id: str, *, timeout: float | None = None) -> orchestrator_pb2.Run:
    """Return one run."""
    request = orchestrator_pb2.GetRunRequest(run_id=run_id)
    answer: orchestrator_pb2.GetRunResponse = connection.call("GetRun", request, timeout=timeout)
    return answer.run


def cancel(connection: Connection, run_id: str) -> orchestrator_pb2.Run:
    """Ask to cancel a run; one that has ended stays as it is."""
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

    When the orchestrator goes away, it is called again with growing pauses, and no event comes twice or is left out.

    Args:
        connection: Where the run is.
        run_id: The run.
        after: Sequence number of the last event already seen; 0 for all.
        patience: Seconds without an answer after which to give up.
        on_lost: Called with the error and the seconds left, each time the orchestrator does not answer.
        on_back: Called when it answers again.

    Raises:
        Unavailable: It did not answer for `patience` seconds.
        NotFound: There is no such run.
    """
    sequence, give_up, pause = after, 0.0, FIRST_PAUSE_SECONDS
    while True:
        began = math.inf
        try:
            if give_up:
                _ask(connection, run_id)
                on_back()
            began = time.monotonic()
            request = orchestrator_pb2.WatchRunRequest(run_id=run_id, after_sequence=sequence)
            for answer in connection.stream("WatchRun", request, timeout=STREAM_SECONDS):
                sequence, give_up, pause = answer.event.sequence, 0.0, FIRST_PAUSE_SECONDS
                yield answer.event
            # A server that shuts down ends its streams too: only the run itself knows whether it has ended.
            if _ask(connection, run_id).state in FINAL:
                return
            raise Unavailable(f"The orchestrator at {connection.address} ended the stream before the run had ended.")
        except DeadlineExceeded:
            continue  # the stream was long, not broken
        except Unavailable as error:
            now = time.monotonic()
            if now - began > STEADY_SECONDS:  # an outage of its own, not more of the last one
                give_up, pause = 0.0, FIRST_PAUSE_SECONDS
            give_up = give_up or now + patience
            if now + pause > give_up:
                raise
            on_lost(error, give_up - now)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            connection.refresh()


def _ask(connection: Connection, run_id: str) -> orchestrator_pb2.Run:
    """Return the run; a server that is there but silent counts as unavailable."""
    try:
        return get(connection, run_id, timeout=ASK_SECONDS)
    except DeadlineExceeded as error:
        raise Unavailable(f"The orchestrator at {connection.address} does not answer.") from error
