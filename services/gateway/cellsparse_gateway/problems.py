"""Failures as problem details (RFC 9457), and the one place that maps gRPC statuses to those of HTTP."""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import grpc
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cellsparse_common.errors import Busy, CellsparseError, Starting, from_rpc_error, was_answered

_LOG = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
_CODE = grpc.StatusCode
HTTP_STATUSES: Mapping[grpc.StatusCode, int] = {
    _CODE.INVALID_ARGUMENT: 422,
    _CODE.OUT_OF_RANGE: 404,
    _CODE.NOT_FOUND: 404,
    _CODE.ALREADY_EXISTS: 409,
    _CODE.ABORTED: 409,
    _CODE.FAILED_PRECONDITION: 409,
    _CODE.RESOURCE_EXHAUSTED: 429,
    _CODE.UNAUTHENTICATED: 401,
    _CODE.PERMISSION_DENIED: 403,
    _CODE.UNIMPLEMENTED: 501,
    _CODE.UNAVAILABLE: 503,
    _CODE.DEADLINE_EXCEEDED: 504,
    _CODE.CANCELLED: 503,
}
"""Any other is 500. RESOURCE_EXHAUSTED of an upload is 413."""
RETRY_SECONDS = "1"


class Problem(Exception):
    """A failure with an HTTP status and one clear sentence.

    Attributes:
        status: HTTP status.
        detail: The sentence.
        errors: (field, sentence) pairs, when fields of the request are at fault.
        retry_seconds: When the request may be repeated; None: as its status has it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
        *,
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.retry_seconds = retry_seconds
        self.status = status
        self.detail = detail
        self.errors = list(errors)


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for a problem."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        content["errors"] = [{"field": field, "detail": detail} for field, detail in problem.errors]
    more = {
        HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": RETRY_SECONDS},
        HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    }.get(HTTPStatus(problem.status), {})
    if problem.retry_seconds is not None:
        more = {**more, "Retry-After": whole_seconds(problem.retry_seconds)}
    return JSONResponse(content, problem.status, {**more, **(headers or {})}, media_type=MEDIA_TYPE)


def whole_seconds(seconds: float) -> str:
    """Return a time as the header Retry-After has it: whole seconds, at least 1."""
    return str(max(1, math.ceil(seconds)))


def from_call(error: grpc.RpcError, *, upload: bool = False) -> Problem:
    """Return the problem behind a failed call.

    Args:
        error: What a stub raised.
        upload: Whether the call carried a file, so that RESOURCE_EXHAUSTED means too large a one.
    """
    found = from_rpc_error(error)
    code = error.code() if isinstance(error, grpc.Call) else _CODE.INTERNAL
    if code == _CODE.UNAVAILABLE and not was_answered(error):
        return Problem(503, "The orchestrator does not answer at the moment; `cellsparse status` says more.")
    return from_error(found, code, upload=upload)


def from_error(error: CellsparseError, code: grpc.StatusCode | None = None, *, upload: bool = False) -> Problem:
    """Return the problem for one of our errors.

    Args:
        error: The error.
        code: Its gRPC status, if the error's class does not tell.
        upload: See `from_call`.
    """
    code = code or error.status
    if isinstance(error, Busy):
        return Problem(429, error.message, error.violations, retry_seconds=error.retry_seconds)
    if isinstance(error, Starting):
        return Problem(503, error.message, error.violations, retry_seconds=error.retry_seconds)
    status = HTTP_STATUSES.get(code, 500)
    if code == _CODE.RESOURCE_EXHAUSTED and (upload or any(word in error.message for word in ("MiB", "pixels"))):
        status = 413
    return Problem(status, error.message, error.violations)


def add_handlers(app: FastAPI) -> None:
    """Make every failure of a route a problem."""

    @app.exception_handler(Problem)
    async def _problem(_: Request, error: Problem) -> Response:
        return respond(error)

    @app.exception_handler(CellsparseError)
    async def _error(_: Request, error: CellsparseError) -> Response:
        return respond(from_error(error))

    @app.exception_handler(grpc.RpcError)
    async def _call(request: Request, error: grpc.RpcError) -> Response:
        problem = from_call(error)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            _LOG.error("%s %s: %s", request.method, request.url.path, problem.detail)
        return respond(problem)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        errors = [_sentence(problem) for problem in error.errors()]
        return respond(Problem(422, " ".join(sentence for _, sentence in errors), errors))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        detail = str(error.detail)
        if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
            detail = f"There is nothing at {request.url.path}."
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{request.method} is not allowed at {request.url.path}."
        return respond(Problem(error.status_code, detail), error.headers)

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:
        _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return respond(Problem(500, "The gateway failed for a reason of its own; its log says which."))


def _sentence(problem: Any) -> tuple[str, str]:
    field = ".".join(str(part) for part in problem["loc"][1:]) or str(problem["loc"][0])
    message = str(problem["msg"])
    given = problem.get("input")
    value = f" is {given!r}" if isinstance(given, str | int | float) and len(str(given)) <= 80 else ""
    return field, f"{field}{value}: {message[:1].lower()}{message[1:]}."
