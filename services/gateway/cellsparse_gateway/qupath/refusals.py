"""Refusals as QuPath shows them: a status, and one sentence as the body's `detail`.

QuPath's extension puts the raw body of every answer other than 200 into a dialog.
"""

from collections.abc import Mapping
from http import HTTPStatus

import grpc

from cellsparse_common.errors import Busy, CellsparseError, InvalidArgument
from cellsparse_gateway.problems import whole_seconds

_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.UNPROCESSABLE_ENTITY,
    grpc.StatusCode.OUT_OF_RANGE: HTTPStatus.UNPROCESSABLE_ENTITY,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.CANCELLED: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Refusal(Exception):
    """An answer other than 200.

    Attributes:
        status: HTTP status.
        sentence: What is wrong and what is allowed.
        headers: Further headers of the answer.
    """

    def __init__(self, status: HTTPStatus, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.headers = dict(headers or {})
        self.status = status
        self.sentence = sentence


def from_error(error: CellsparseError) -> Refusal:
    """Return the refusal that tells an error of another service."""
    if isinstance(error, Busy):
        wait = {"Retry-After": whole_seconds(error.retry_seconds)}
        return Refusal(HTTPStatus.TOO_MANY_REQUESTS, error.message, wait)
    return Refusal(_STATUSES.get(error.status, HTTPStatus.BAD_GATEWAY), error.message)


def unprocessable(sentence: str) -> Refusal:
    """Return a refusal of the request itself."""
    return from_error(InvalidArgument(sentence))
