"""Turns the exception that ended a training into a reason and a sentence."""

from cellsparse_common.errors import CellsparseError, Internal, StorageError
from cellsparse_proto.v1 import common_pb2
from cellsparse_trainer.plan import Plan

# Names, not classes: this package imports no framework.
_OUT_OF_MEMORY_CLASSES = {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError", "_ArrayMemoryError"}
_OUT_OF_MEMORY_TEXTS = ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory", "OOM when allocating")


def explain(error: BaseException, plan: Plan | None) -> tuple["common_pb2.FailureReason", str]:
    """Return why a training failed, for the run's record.

    Args:
        error: What ended it.
        plan: Its plan, if it got that far; names the batch and crop that did not fit into memory.
    """
    if _is_out_of_memory(error):
        size = f" with batch {plan.batch_size} and crop {plan.crop_size}" if plan else ""
        return common_pb2.FAILURE_REASON_OUT_OF_MEMORY, f"Memory ran out{size}; try a smaller batch_size or crop_size."
    if isinstance(error, FloatingPointError):
        sentence = f"{error} Try a lower learning_rate; checkpoints from before are kept."
        return common_pb2.FAILURE_REASON_USER_ERROR, sentence
    if isinstance(error, StorageError):
        return common_pb2.FAILURE_REASON_STORAGE, error.message
    if isinstance(error, CellsparseError) and not isinstance(error, Internal):
        return common_pb2.FAILURE_REASON_USER_ERROR, error.message
    return common_pb2.FAILURE_REASON_INTERNAL, f"{type(error).__name__}: {error}"


def _is_out_of_memory(error: BaseException) -> bool:
    return type(error).__name__ in _OUT_OF_MEMORY_CLASSES or any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)
