"""Errors and their gRPC statuses: the one place that maps between the two.

Servicers raise these classes. The server's interceptor sends them as a status with `google.rpc.Status` details. Callers
turn a status back into the same classes with `from_rpc_error`.
"""

from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "cellsparse"
BUSY_SECONDS = 1.0
"""When to repeat a call that a busy server refused without saying when."""
_TOO_MANY_CALLS = "Concurrent RPC limit exceeded!"
"""What gRPC itself says when a server has more calls than it can even refuse."""


class CellsparseError(Exception):
    """A failure with one clear sentence and a gRPC status.

    Attributes:
        status: Its gRPC status.
        message: One sentence naming the bad value and what is allowed.
        violations: (field path, description) pairs, when fields of a request are at fault.
    """

    status = grpc.StatusCode.INTERNAL

    def __init__(self, message: str, field: str = "", *, violations: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.violations = list(violations) or ([(field, message)] if field else [])


class InvalidArgument(CellsparseError):
    """The request is invalid in any state of the service."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(CellsparseError):
    """An object that the request names does not exist."""

    status = grpc.StatusCode.NOT_FOUND


class AlreadyExists(CellsparseError):
    """The object to be created exists and is different."""

    status = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(CellsparseError):
    """The request is valid but does not fit the current state of the service."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class OutOfRange(CellsparseError):
    """The request names a place beyond the end of what there is."""

    status = grpc.StatusCode.OUT_OF_RANGE


class Aborted(CellsparseError):
    """Someone else changed the same thing first. The caller reads it again and repeats its change."""

    status = grpc.StatusCode.ABORTED


class ResourceExhausted(CellsparseError):
    """A size or quota limit is reached."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class RetryLater(CellsparseError):
    """Nothing of the call was done, and it may be repeated.

    Attributes:
        retry_seconds: When to repeat it. Travels as `google.rpc.RetryInfo`.
    """

    def __init__(
        self,
        message: str,
        field: str = "",
        *,
        violations: Sequence[tuple[str, str]] = (),
        retry_seconds: float = BUSY_SECONDS,
    ) -> None:
        super().__init__(message, field, violations=violations)
        self.retry_seconds = retry_seconds


class Busy(RetryLater, ResourceExhausted):
    """Too much is under way or waits already."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(CellsparseError):
    """A service or store does not respond at the moment. A retry may succeed."""

    status = grpc.StatusCode.UNAVAILABLE


class Starting(RetryLater, Unavailable):
    """A service that sleeps while nobody needs it is being started."""

    status = grpc.StatusCode.UNAVAILABLE


class StorageError(Unavailable):
    """The object store could not be read or written."""


class Damaged(StorageError):
    """The store answers, but an object in it is missing or not what it should be. Waiting does not help."""

    status = grpc.StatusCode.DATA_LOSS


class DeadlineExceeded(CellsparseError):
    """The work took longer than allowed."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(CellsparseError):
    """The caller cancelled the call or disconnected."""

    status = grpc.StatusCode.CANCELLED


class Unauthenticated(CellsparseError):
    """The caller shows no token, or none that is valid now."""

    status = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(CellsparseError):
    """The caller is known, and may not do this."""

    status = grpc.StatusCode.PERMISSION_DENIED


class Unimplemented(CellsparseError):
    """The server does not know this call: it is of another version."""

    status = grpc.StatusCode.UNIMPLEMENTED


class Internal(CellsparseError):
    """A bug in Cellsparse."""

    status = grpc.StatusCode.INTERNAL


_MESSAGE_ROOM = 1_000
"""Most bytes of an error's sentence, escaped. It is sent twice: so, and in the details, in base64."""
_ROOM = 5_000
"""Most bytes of the sentence and all violations."""

_BY_STATUS: dict[grpc.StatusCode, type[CellsparseError]] = {
    kind.status: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        OutOfRange,
        Aborted,
        ResourceExhausted,
        Unavailable,
        Damaged,
        DeadlineExceeded,
        Cancelled,
        Unauthenticated,
        PermissionDenied,
        Unimplemented,
    )
}

_BY_REASON: dict[str, type[CellsparseError]] = {kind.__name__: kind for kind in (Busy, Starting, StorageError, Damaged)}
"""Classes that share their status with another one."""


def to_status(error: CellsparseError) -> status_pb2.Status:
    """Return the `google.rpc.Status` of an error.

    What does not fit into the metadata of a call, of which gRPC takes 8 KiB, is cut: the transport would refuse all of
    it. Its details are BadRequest with the violations, ErrorInfo with the error's class, and RetryInfo of a
    `RetryLater`.
    """
    details = []
    message = _fitting(error.message)
    if error.violations:
        bad = error_details_pb2.BadRequest()
        left = _ROOM - len(message.encode(errors="replace"))
        for field, description in error.violations:
            left -= len(field.encode(errors="replace")) + len(description.encode(errors="replace"))
            if left < 0:
                break
            bad.field_violations.add(field=field, description=description)
        details.append(_pack(bad))
    details.append(_pack(error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN)))
    if isinstance(error, RetryLater):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_seconds * 1e9))
        details.append(_pack(retry))
    return status_pb2.Status(code=error.status.value[0], message=message, details=details)


def _fitting(message: str) -> str:
    """Return a message, cut where it would not fit into the metadata of a call."""
    cost = 0
    for at, character in enumerate(message):
        cost += 1 if " " <= character <= "~" else 3 * len(character.encode(errors="replace"))  # as it is escaped
        if cost > _MESSAGE_ROOM:
            return message[:at] + " ..."
    return message


def from_rpc_error(error: grpc.RpcError) -> CellsparseError:
    """Return the error behind a failed call, with its sentence and field violations.

    Args:
        error: What a stub raised.

    Returns:
        An instance of the class that belongs to the status; `Internal` for a status without a class.
    """
    call = error if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    if call is None:
        return Internal(f"The call failed: {error}")
    kind = _BY_STATUS.get(call.code(), Internal)
    violations: list[tuple[str, str]] = []
    retry_seconds = BUSY_SECONDS
    try:
        status = rpc_status.from_call(call)
    except (ValueError, NotImplementedError):
        status = None
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = [(item.field, item.description) for item in bad.field_violations]
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            kind = _BY_REASON.get(info.reason, kind)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_seconds = max(0.0, retry.retry_delay.ToNanoseconds() / 1e9)
    if kind is ResourceExhausted and status is None and call.details() == _TOO_MANY_CALLS:
        kind = Busy
    if kind is Busy:
        return Busy(call.details() or "The server is busy.", violations=violations, retry_seconds=retry_seconds)
    if kind is Starting:
        return Starting(call.details() or "The service starts.", violations=violations, retry_seconds=retry_seconds)
    return kind(call.details() or f"The call failed with {call.code().name}.", violations=violations)


def was_answered(error: grpc.RpcError) -> bool:
    """Whether one of our servers answered a call with this error, rather than the transport failing on the way."""
    try:
        return isinstance(error, grpc.Call) and rpc_status.from_call(error) is not None
    except (ValueError, NotImplementedError):
        return False


def _pack(
    message: error_details_pb2.BadRequest | error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
