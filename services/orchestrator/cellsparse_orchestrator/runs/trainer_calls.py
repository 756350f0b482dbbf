"""Short calls to the trainers of an attempt: start, stop, and the reason of a failure."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import grpc

from cellsparse_common.errors import (
    Cancelled,
    CellsparseError,
    Damaged,
    DeadlineExceeded,
    NotFound,
    ResourceExhausted,
    StorageError,
    Unavailable,
    from_rpc_error,
)
from cellsparse_common.rpc.channel import open_channel
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.launchers.base import Service
from cellsparse_orchestrator.runs.decisions import AttemptOutcome
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

_LOG = logging.getLogger(__name__)
_CALL_SECONDS = 15.0
_FIND_SECONDS, _FIND_PAUSE_SECONDS = 5.0, 0.2
_CAUSE_SECONDS = 5.0
"""Longest time to ask the other nodes why they ended, in all."""
_UNKNOWN = (common_pb2.FAILURE_REASON_UNSPECIFIED, common_pb2.FAILURE_REASON_LOST)
_IN_STORE = frozenset({"dataset_id", "model_id"})
"""Fields that trainers name where an object of the store is not found."""
_RANKS_PORT = 29400
"""Port for the rendezvous of several nodes; torchrun's default."""
_AWAY = (Unavailable, DeadlineExceeded, ResourceExhausted, Cancelled)
"""Errors of a trainer that is away, starting, stopping or overloaded; some come from the transport."""


def start_training(
    attempt: RunAttempt,
    trainer: Service,
    fence: int = 0,
    credentials: trainer_pb2.StoreCredentials | None = None,
) -> dict[str, str]:
    """Ask the trainers of all nodes to start, the first node last; return the trainer's versions.

    A repeated request starts nothing twice. A node gives up by itself if the first node never starts.

    Args:
        attempt: The attempt.
        trainer: Its trainer.
        fence: Number of our lease.
        credentials: For the store; None: its trainer has some.

    Raises:
        grpc.RpcError: A trainer is away or refuses.
    """
    hosts = trainer.hosts or (trainer.address,)
    versions = trainer.versions
    for node in reversed(range(len(hosts))):
        request = trainer_pb2.StartTrainingRequest(
            run_id=attempt.run_id,
            attempt=attempt.number,
            dataset_id=attempt.dataset_id,
            settings=attempt.settings,
            fence=fence,
            credentials=credentials,
        )
        if trainer.hosts or attempt.has_fewer:  # without a placement, one trainer starts the processes of all nodes
            names = [host.rpartition(":")[0] for host in hosts]
            request.placement.CopyFrom(
                trainer_pb2.Placement(hosts=names, node=node, port=_RANKS_PORT, secret=attempt.secret)
            )
        with open_channel(hosts[node]) as channel:
            stub = trainer_pb2_grpc.TrainerServiceStub(channel)
            stub.StartTraining(request, timeout=_CALL_SECONDS)
            if not versions:
                versions = dict(stub.Describe(trainer_pb2.DescribeRequest(), timeout=_CALL_SECONDS).versions)
    return versions


def knows_attempt(attempt: RunAttempt, address: str, seconds: float) -> bool:
    """Return whether a trainer at an address trains an attempt, or knows how it ended.

    Args:
        attempt: The attempt.
        address: Where another orchestrator has asked for it.
        seconds: How long to ask a trainer that does not answer.
    """
    deadline = time.monotonic() + seconds
    request = trainer_pb2.WatchTrainingRequest(run_id=attempt.run_id, attempt=attempt.number)
    while True:
        try:
            with open_channel(address) as channel:
                stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                active = stub.Describe(trainer_pb2.DescribeRequest(), timeout=_FIND_SECONDS).active
                if f"{attempt.run_id}/{attempt.number}" in active:
                    return True
                stream = stub.WatchTraining(request, timeout=_FIND_SECONDS)
                known = next(iter(stream), None) is not None
                stream.cancel()
                return known
        except grpc.RpcError as error:
            if not is_away(from_rpc_error(error)) or time.monotonic() > deadline:
                return False
        time.sleep(_FIND_PAUSE_SECONDS)


def stop_training(attempt: RunAttempt, address: str, seconds: float) -> CellsparseError | None:
    """Ask a trainer to end an attempt; return None if it has none under way now, else why this is not known.

    Args:
        attempt: The attempt.
        address: The trainer's.
        seconds: Longest time to wait for the end of its process.
    """
    request = trainer_pb2.StopTrainingRequest(run_id=attempt.run_id, attempt=attempt.number)
    try:
        with open_channel(address) as channel:
            trainer_pb2_grpc.TrainerServiceStub(channel).StopTraining(request, timeout=seconds)
    except grpc.RpcError as rpc_error:
        error = from_rpc_error(rpc_error)
        if isinstance(error, NotFound):
            return None
        _LOG.warning("the trainer did not confirm the end of the attempt: %s", error.message)
        return error
    return None


def find_cause(attempt: RunAttempt, outcome: AttemptOutcome, others: Sequence[str]) -> AttemptOutcome:
    """Return the outcome, with the reason of another node if the failure began there.

    A training on several nodes is watched on the first one. The first node knows only that a process on another node is
    gone; that node itself knows why, for instance that its memory ran out.

    Args:
        attempt: The attempt.
        outcome: How the attempt ended on its first node.
        others: Addresses of the other nodes' trainers.
    """
    if outcome.reason != common_pb2.FAILURE_REASON_LOST:
        return outcome
    deadline = time.monotonic() + _CAUSE_SECONDS
    for address in others:
        event = _last_event(attempt, address, deadline - time.monotonic())
        if event is not None and event.state == run_states.FAILED and event.reason not in _UNKNOWN:
            return replace(outcome, reason=event.reason, message=event.message, damaged=event.damaged)
    return outcome


def is_away(error: CellsparseError) -> bool:
    """Return whether an error says that the trainer is away for now, so that the call may be repeated."""
    return isinstance(error, _AWAY) and not isinstance(error, StorageError)


def store_is_away(error: CellsparseError) -> bool:
    """Return whether an error says that a trainer cannot reach the store for now."""
    return isinstance(error, StorageError) and not isinstance(error, Damaged)


def failed(reason: int, message: str) -> AttemptOutcome:
    """Return the outcome of an attempt that failed for a reason (proto `FailureReason`)."""
    return AttemptOutcome(state=run_states.FAILED, reason=reason, message=message)


def refused(error: CellsparseError) -> AttemptOutcome:
    """Return the outcome of an attempt that its trainer refused with an error."""
    if isinstance(error, StorageError):
        outcome = failed(common_pb2.FAILURE_REASON_STORAGE, error.message)
        return replace(outcome, damaged=isinstance(error, Damaged))
    if isinstance(error, NotFound) and _IN_STORE.intersection(field for field, _ in error.violations):
        # The database lists them, so they exist: for the trainer the store has lost them, for now or for good.
        return failed(common_pb2.FAILURE_REASON_STORAGE, f"The store does not have what the run needs: {error.message}")
    if error.status in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    ):
        return failed(common_pb2.FAILURE_REASON_USER_ERROR, error.message)
    return failed(common_pb2.FAILURE_REASON_INTERNAL, error.message)


def _last_event(attempt: RunAttempt, address: str, seconds: float) -> trainer_pb2.TrainingEvent | None:
    """Return the attempt's last event at a trainer; None if it has none or does not answer in time."""
    request = trainer_pb2.WatchTrainingRequest(run_id=attempt.run_id, attempt=attempt.number)
    last = None
    try:
        with open_channel(address) as channel:
            for answer in trainer_pb2_grpc.TrainerServiceStub(channel).WatchTraining(request, timeout=seconds):
                last = answer.event
    except grpc.RpcError:
        return None  # an unknown attempt or a late answer explains nothing
    return last
