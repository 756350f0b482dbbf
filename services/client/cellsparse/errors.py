"""Exceptions of the SDK: one class per kind of failure, each with one sentence in `.message`.

All derive from `CellsparseError`; `.status` is the gRPC status and `.violations` the fields of a request at fault.
"""

from cellsparse_common.errors import (
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
    PermissionDenied,
    ResourceExhausted,
    StorageError,
    Unauthenticated,
    Unavailable,
)

__all__ = [
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
    "PermissionDenied",
    "ResourceExhausted",
    "RunFailedError",
    "StorageError",
    "Unauthenticated",
    "Unavailable",
]


class RunFailedError(CellsparseError):
    """A run ended without a model: it failed or was cancelled."""
