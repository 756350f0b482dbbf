"""Exceptions of the SDK: one class per kind of failure, each with one sentence in `.message`.

All derive from `CellsparseError`; `.status` is the gRPC status and `.violations` the fields of a request at fault.
"""

from cellsparse_common.errors import (
    Aborted,
    AlreadyExists,
    Busy,
    Cancelled,
    CellsparseError,
    Damaged,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Starting,
    StorageError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Busy",
    "Cancelled",
    "CellsparseError",
    "Damaged",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "RunFailedError",
    "Starting",
    "StorageError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]


class RunFailedError(CellsparseError):
    """A run ended without a model: it failed or was cancelled."""
