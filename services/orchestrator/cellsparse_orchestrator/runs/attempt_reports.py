"""Store what the watchers of attempts report: all that comes at the same time in one transaction."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator.db.group_writer import GroupWriter
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.reported_runs import ReportedRun, read_runs, write_runs
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_proto.v1 import trainer_pb2

_SECONDS = 60.0
"""Longest wait of a report for those before it."""
_MOST = 400
"""Most reports stored in one transaction."""
_Report = tuple[str, Callable[[ReportedRun], None]]
"""A run's id, and what changes it."""


class AttemptReports:
    """Stores reports. Each raises NotFound if there is no such run, and Unavailable if the database does not answer.

    Args:
        database: Where.
        notifier: Is told of the runs.
    """

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier
        self._writer = GroupWriter(self._store, _MOST, "reports")

    def event(self, attempt: RunAttempt, event: trainer_pb2.TrainingEvent) -> "Future[None]":
        """Store an event that does not end the attempt, soon; one that is stored already changes nothing."""
        return self._writer.post((attempt.run_id, lambda run: run.take(attempt.number, event)))

    def waiting(self, attempt: RunAttempt, message: str) -> None:
        """Store what an attempt that has not begun to train waits for; a repeated message changes nothing."""
        self._writer.submit((attempt.run_id, lambda run: run.wait(attempt.number, message)), _SECONDS)

    def asked(self, attempt: RunAttempt, trainer: str) -> None:
        """Store the address of the trainer that is about to be asked to start an attempt.

        Raises:
            Aborted: The attempt is over.
            LeaseLost: Another orchestrator has taken over.
        """
        self._writer.submit((attempt.run_id, lambda run: run.ask(attempt.number, trainer)), _SECONDS)

    def resized(self, attempt: RunAttempt, nodes: int, message: str) -> None:
        """Store that an attempt that has not begun goes on with fewer nodes, and why.

        Raises:
            Aborted: The attempt is over.
            LeaseLost: Another orchestrator has taken over.
        """
        self._writer.submit((attempt.run_id, lambda run: run.resize(attempt.number, nodes, message)), _SECONDS)

    def _store(self, reports: Sequence[_Report]) -> None:
        run_ids = sorted({run_id for run_id, _ in reports})
        with self._database.write() as session:
            connection = session.connection()
            runs = read_runs(connection, run_ids)
            for run_id, change in reports:
                if run_id not in runs:
                    raise NotFound(f"There is no run {run_id!r}.")
                change(runs[run_id])
            write_runs(connection, [run for run in runs.values() if run.changed])
        self._notifier.notify(*run_ids)
