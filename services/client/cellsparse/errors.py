"""Exceptions of the SDK: one class per kind of failure, each with one sentence in `.message`.

All derive from `CellsparseError`; `.status` is the gRPC status and `.violations` the fields of a request at fault.
"""

from cellsparse_common.errors import (
    AlreadyExists,
    Cancelled,
    CellsparseError,
    Damaged,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    StorageError,
    Unavailable,
)

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "CellsparseError",
    "Damaged",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "ResourceExhausted",
    "RunFailedError",
    "StorageError",
    "Unavailable",
]


class RunFailedError(CellsparseError):
    """A run ended without a model: it failed or was cancelled."""
