"""Turns the exception that ended a training into a failure reason and an error message."""

import errno
import os
from math import isfinite

from cellsparse_common.errors import CellsparseError, Internal, StorageError, Unavailable
from cellsparse_proto.v1 import common_pb2
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.distributed.ranks import Ranks

# Names, not classes: this package imports no framework.
_OUT_OF_MEMORY_CLASSES = {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError", "_ArrayMemoryError"}
_OUT_OF_MEMORY_TEXTS = (
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
    "out of memory",  # torch says "CUDA out of memory" of its own pool, and "CUDA error: out of memory" of the driver
    "oom when allocating",
    "failed to allocate memory",  # TensorFlow's
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "insufficient memory",  # OpenCV's
    "std::bad_alloc",
    "cannot allocate memory",  # the system's words for ENOMEM, as in an ImportError
    "failed to map segment",  # the dynamic loader's
    "can't start new thread",  # Python's, when there is no memory for a stack
)
"""In lower case."""

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_PEER_LOST_CLASSES = {
    "DistBackendError",
    "DistNetworkError",
    "DistStoreError",
    "UnavailableError",
    "AbortedError",
    "CancelledError",
}
_PEER_LOST_TEXTS = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL error")


def not_finite(loss: float, step: int) -> FloatingPointError:
    """Return what a backend raises where a loss or gradient is not finite.

    Args:
        loss: The loss.
        step: Number of the step, from 0. The sentence counts from 1, as events and checkpoints count the steps done.
    """
    what = f"The loss is {loss}" if not isfinite(loss) else "The gradient is not finite"
    return FloatingPointError(f"{what} at step {step + 1}.")


def explain(error: BaseException, plan: Plan | None) -> tuple["common_pb2.FailureReason", str]:
    """Return why a training failed, for the run's record.

    Args:
        error: The exception that ended it.
        plan: Its plan, if known; gives the batch and crop that did not fit into memory.
    """
    if is_out_of_memory(error):
        return common_pb2.FAILURE_REASON_OUT_OF_MEMORY, _memory_sentence(plan)
    if isinstance(error, FloatingPointError):
        sentence = f"{error} Try a lower learning_rate; checkpoints from before are kept."
        return common_pb2.FAILURE_REASON_USER_ERROR, sentence
    if isinstance(error, StorageError):
        return common_pb2.FAILURE_REASON_STORAGE, error.message
    if _is_full_disk(error):
        return (
            common_pb2.FAILURE_REASON_STORAGE,
            f"A disk of the trainer cannot be written: {getattr(error, 'strerror', None) or error}.",
        )
    if isinstance(error, CellsparseError) and not isinstance(error, Internal):
        return common_pb2.FAILURE_REASON_USER_ERROR, error.message
    return common_pb2.FAILURE_REASON_INTERNAL, f"{type(error).__name__}: {error}"


def explain_of_several(error: BaseException, plan: Plan | None, ranks: Ranks) -> tuple["common_pb2.FailureReason", str]:
    """Return why one of several processes failed; arguments as `explain`, and its rank.

    An error that a framework raises because another process is gone, or did not connect in time, is not this process's
    fault: another attempt may succeed.
    """
    if isinstance(error, Unavailable) and not isinstance(error, StorageError):
        return common_pb2.FAILURE_REASON_LOST, error.message
    if type(error).__name__ in _PEER_LOST_CLASSES or any(text in str(error) for text in _PEER_LOST_TEXTS):
        sentence = f"Rank {ranks.rank} of {ranks.world} lost the others: {str(error).splitlines()[0]}"
        return common_pb2.FAILURE_REASON_LOST, sentence
    return explain(error, plan)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, of the machine or of a GPU; frameworks report it in many ways."""
    if isinstance(error, CellsparseError):  # ours have their own reasons
        return False
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    said = str(error).lower()
    return type(error).__name__ in _OUT_OF_MEMORY_CLASSES or any(text in said for text in _OUT_OF_MEMORY_TEXTS)


def _is_full_disk(error: BaseException) -> bool:
    """Whether an exception means that a disk of this machine takes nothing more; ours name the disk themselves."""
    if isinstance(error, CellsparseError):
        return False
    known = isinstance(error, OSError) and error.errno in _DISK_ERRORS
    return known or os.strerror(errno.ENOSPC).lower() in str(error).lower()  # frameworks wrap the system's words


def _memory_sentence(plan: Plan | None) -> str:
    if plan is None:
        return "Memory ran out; try a smaller batch_size or crop_size."
    size = f" with batch {plan.batch_size} and crop {plan.crop_size}"
    if plan.crop_depth is None:
        return f"Memory ran out{size}; try a smaller batch_size or crop_size."
    return f"Memory ran out{size}, {plan.crop_depth} planes deep; try a smaller batch_size, crop_size or crop_depth."
