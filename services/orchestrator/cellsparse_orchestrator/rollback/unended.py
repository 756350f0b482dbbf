"""Runs that have not ended when a database goes back: they wait in the queue again, and begin anew where they must."""

import json

from sqlalchemy import Connection, select, update

from cellsparse_common.errors import NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.tables import AttemptRow, RunRow
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_orchestrator.runs.trainer_calls import stop_training
from cellsparse_proto.v1 import common_pb2, trainer_pb2

_STOP_SECONDS = 30.0
_FIRST_POINTER = {"step", "score", "files", "best", "stale"}
"""What a pointer to a checkpoint holds in release 0.1.0, which takes any other one for damaged."""


def end_attempts(connection: Connection) -> list[str]:
    """Ask the trainers of all attempts under way to end them, so that they write no more checkpoints.

    Returns:
        The addresses of those that did not confirm that.
    """
    under_way = select(AttemptRow.run_id, AttemptRow.number, AttemptRow.trainer).where(
        AttemptRow.ended_at.is_(None), AttemptRow.trainer != ""
    )
    silent = set()
    for run_id, number, trainer in connection.execute(under_way).all():
        settings = trainer_pb2.TrainingSettings()  # of which the call needs nothing
        attempt = RunAttempt(run_id=run_id, number=number, backend="", dataset_id="", settings=settings)
        if stop_training(attempt, trainer, _STOP_SECONDS) is not None:
            silent.add(trainer)
    return sorted(silent)


def queue_again(connection: Connection) -> list[str]:
    """Put all runs that have begun and not ended back into the queue, at no cost of attempts; return their ids."""
    active = [run_states.state_name(state) for state in run_states.ACTIVE]
    begun = list(connection.scalars(select(RunRow.id).where(RunRow.state.in_(active)).order_by(RunRow.number)))
    connection.execute(
        update(AttemptRow)
        .where(AttemptRow.run_id.in_(begun), AttemptRow.ended_at.is_(None))
        .values(
            state=run_states.state_name(run_states.FAILED),
            reason=run_states.reason_name(common_pb2.FAILURE_REASON_LOST),
            message="The orchestrator went back to an earlier release.",
            ended_at=now(),
        )
    )
    connection.execute(
        update(RunRow)
        .where(RunRow.id.in_(begun))
        .values(
            state=run_states.state_name(run_states.QUEUED),
            reason="",
            message="",
            retry_at=None,
            interruptions=RunRow.attempts,
        )
    )
    return begun


def remove_newer_checkpoints(store: ObjectStore, run_ids: list[str]) -> int:
    """Remove the checkpoints that release 0.1.0 could not read of some runs; return how many runs begin anew.

    Raises:
        StorageError: The store does not answer.
    """
    anew = 0
    for run_id in run_ids:
        if _is_newer(store, run_id):
            anew += 1
            # The pointers first: without them the files mean nothing.
            for name in ("LATEST", "BEST"):
                store.delete(keys.checkpoint_pointer(run_id, name))
            for key in list(store.list(keys.checkpoints_prefix(run_id))):
                store.delete(key)
    return anew


def _is_newer(store: ObjectStore, run_id: str) -> bool:
    for name in ("LATEST", "BEST"):
        try:
            found = json.loads(store.get(keys.checkpoint_pointer(run_id, name)))
        except NotFound:
            continue
        except ValueError:
            return True
        if not isinstance(found, dict) or found.keys() - _FIRST_POINTER:
            return True
    return False
