"""Why a training process ended without sending a final event."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.processes.failures import explain
from cellsparse_trainer.processes.launch import Placement

_RENDEZVOUS_TIMEOUTS = ("waiting for clients", "The client socket has timed out")
"""Texts that torchrun prints where the processes of another node did not connect in time."""
_NO_MEMORY = "std::bad_alloc"
"""C++ prints this before it aborts a process because an allocation outside of Python failed."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a training process ended."""

    code: int
    """Exit code, negative for a signal."""
    tail: Sequence[str]
    """The last lines of its standard error."""
    plan: Plan | None
    """The attempt's plan; gives batch and crop where memory ran out."""
    placement: Placement | None
    """Where its processes were; None: one process trained alone."""
    killed_for_memory: bool
    """Whether the kernel killed a process of this container for its memory meanwhile."""


def explain_exit(ended: Exit) -> trainer_pb2.TrainingEvent:
    """Return the final event of an attempt whose process sent none."""
    event = trainer_pb2.TrainingEvent(state=common_pb2.RUN_STATE_FAILED)
    if _ran_out_of_memory(ended):
        event.reason, event.message = explain(MemoryError(), ended.plan)
    elif ended.code == -signal.SIGKILL:
        event.reason = common_pb2.FAILURE_REASON_LOST
        event.message = "The training process was killed (signal 9)."
    elif ended.code < 0:
        event.reason = common_pb2.FAILURE_REASON_LOST
        event.message = f"The training process was ended by signal {-ended.code}."
    elif ended.placement is not None:
        event.reason = common_pb2.FAILURE_REASON_LOST
        event.message = _one_of_several(ended.tail, ended.placement)
        event.log_lines.extend(ended.tail)
    else:
        event.reason = common_pb2.FAILURE_REASON_INTERNAL
        event.message = f"The training process ended with code {ended.code} and no result; its log has more."
        event.log_lines.extend(ended.tail)
    return event


def lost(message: str) -> trainer_pb2.TrainingEvent:
    """Return the final event of an attempt that was lost: another attempt may go on."""
    return trainer_pb2.TrainingEvent(
        state=common_pb2.RUN_STATE_FAILED, reason=common_pb2.FAILURE_REASON_LOST, message=message
    )


def evicted() -> trainer_pb2.TrainingEvent:
    """Return the final event of an attempt whose trainer shuts down."""
    return trainer_pb2.TrainingEvent(
        state=common_pb2.RUN_STATE_FAILED,
        reason=common_pb2.FAILURE_REASON_EVICTED,
        message="The trainer was shut down; a checkpoint was written.",
    )


def _ran_out_of_memory(ended: Exit) -> bool:
    # Of several processes the killed one is below the node's command, whose exit code is another one.
    killed = ended.code == -signal.SIGKILL or ended.placement is not None
    aborted = ended.code == -signal.SIGABRT and any(_NO_MEMORY in line for line in ended.tail)
    return aborted or (killed and ended.killed_for_memory)


def _one_of_several(tail: Sequence[str], placement: Placement) -> str:
    if any(text in line for line in tail for text in _RENDEZVOUS_TIMEOUTS):
        nodes, seconds = len(placement.hosts), placement.rendezvous_seconds
        return f"Not all of the {nodes} nodes were there within {seconds:.0f} s."
    return f"One of the {placement.world} training processes ended without a result; the log has more."
