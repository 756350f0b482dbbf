"""Interceptor of every call: trace and log context, who may call, field rules, and exceptions as a status."""

import errno
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from cellsparse_common import tracing
from cellsparse_common.errors import (
    CellsparseError,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    to_status,
)
from cellsparse_common.rpc.admission import HEALTH_WATCH, WATCHES, Admission
from cellsparse_common.rpc.certificate_names import check_certificate
from cellsparse_common.rpc.metrics import CallMetrics
from cellsparse_common.rpc.rules import violations
from cellsparse_common.rpc.waiting_streams import NextTurn, Pause, WaitingStreams, wait_out

_LOG = logging.getLogger(__name__)
_HEALTH = "/grpc.health.v1."
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a disk that takes nothing more."""


class CallRecord(Protocol):
    """Is told what a call is about."""

    def asked(self, request: Any) -> None:
        """Take a message of the request."""

    def answered(self, answer: Any) -> None:
        """Take the answer."""

    def sending(self, answer: Any) -> None:
        """Take a message of a stream of answers, before it is sent.

        Raises:
            Unauthenticated: The caller is not known any more.
        """


class Gate(Protocol):
    """Decides who may make a call."""

    def open(self, method: str, metadata: Mapping[str, str], peer: str) -> AbstractContextManager[CallRecord]:
        """Let a call of ours through for as long as it runs.

        Raises:
            Unauthenticated: Nobody knows the caller.
            PermissionDenied: The caller may not make it.
        """


class _NoRecord:
    def asked(self, request: Any) -> None:
        pass

    def answered(self, answer: Any) -> None:
        pass

    def sending(self, answer: Any) -> None:
        pass


class CallGuard(grpc.ServerInterceptor):  # type: ignore[misc]
    """Checks every request to our services and turns every exception into a status with details.

    Args:
        metrics: Counts the calls.
        admission: Bounds them; None for a server without bounds of its own.
        refuse: Says why our own services answer no call now; empty: they do.
        hide: Takes out of a sentence what is not for clients.
        gate: Decides who may call our own services; None: everybody.
        callers: Names of which a caller's certificate must hold one, but for health checks; empty: it need not.
        waiting: Works for streams of `WATCHES`; None: one with the usual number of threads.
    """

    def __init__(
        self,
        metrics: CallMetrics | None = None,
        admission: Admission | None = None,
        refuse: Callable[[], str] = lambda: "",
        hide: Callable[[str], str] = lambda sentence: sentence,
        gate: Gate | None = None,
        callers: tuple[str, ...] = (),
        waiting: WaitingStreams | None = None,
    ) -> None:
        self._metrics = metrics or CallMetrics(CollectorRegistry())
        self._admission = admission
        self._refuse = refuse
        self.hide = hide
        self._gate = gate
        self._callers = callers
        self._lock = threading.Lock()
        self._last_call = self._last_use = time.monotonic()
        self._running = self._in_use = 0
        self._waiting = waiting or WaitingStreams()

    def seconds_idle(self) -> float:
        """Return the seconds since the last call of any service ended; 0 while one is running."""
        with self._lock:
            return 0.0 if self._running else time.monotonic() - self._last_call

    def seconds_unused(self) -> float:
        """Return the seconds since the last call to one of our own services ended; health probes do not count."""
        with self._lock:
            return 0.0 if self._in_use else time.monotonic() - self._last_use

    def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of a call (see `grpc.ServerInterceptor`)."""
        handler = continuation(details)
        if handler is None:
            return handler
        decode, encode = _decoding(handler.request_deserializer), handler.response_serializer
        if details.method == HEALTH_WATCH:
            if self._admission is None:
                return handler
            return grpc.stream_stream_rpc_method_handler(self._health(handler.unary_stream, details), decode, encode)
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            behavior = getattr(handler, kind)
            if behavior is not None:
                single = self._admission is not None and kind.startswith("unary_")
                # gRPC would wait for the one message of a request before we could count the call. On the wire it is
                # the same as a stream of one.
                made = kind.replace("unary_", "stream_", 1) if single else kind
                if single and details.method in WATCHES:
                    call = self._watch(behavior, details)
                else:
                    call = (self._stream if kind.endswith("_stream") else self._unary)(behavior, details, single)
                if self._admission is not None:
                    call.experimental_thread_pool = self._admission.kept_threads(details.method)  # type: ignore[attr-defined]
                return getattr(grpc, f"{made}_rpc_method_handler")(call, decode, encode)
        return handler

    def _unary(
        self, behavior: Callable[..., Any], details: grpc.HandlerCallDetails, single: bool
    ) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with self._around(details, context), self._admitted(details, context):
                self._check_caller(details.method, context)
                self._be_open(details.method)
                with self._allowed(details, context) as record:
                    asked = self._received(request, details.method, context) if single else request
                    answer = behavior(_checked(asked, details.method, record), context)
                    record.answered(answer)
                    return answer

        return call

    def _stream(
        self, behavior: Callable[..., Any], details: grpc.HandlerCallDetails, single: bool
    ) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with closing(self._steps(behavior, details, single, request, context)) as steps:
                for answer in steps:
                    if isinstance(answer, Pause):
                        wait_out(answer)
                    else:
                        yield answer

        return call

    def _watch(self, behavior: Callable[..., Any], details: grpc.HandlerCallDetails) -> Callable[..., Any]:
        """Wrap a method that mostly waits: its stream holds no thread meanwhile.

        gRPC calls what has the attribute below with a function that sends, and takes its thread back when that returns,
        as it does for the health service's Watch.
        """

        def call(requests: Iterator[Any], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
            self._waiting.begin(self._steps(behavior, details, True, requests, context), context, send)

        call.experimental_non_blocking = True  # type: ignore[attr-defined]
        return call

    def _steps(
        self,
        behavior: Callable[..., Any],
        details: grpc.HandlerCallDetails,
        single: bool,
        request: Any,
        context: grpc.ServicerContext,
    ) -> Generator[Any, None, None]:
        """Yield the answers of a stream, and the pauses between them; the first pause when the request has come."""
        with self._around(details, context), self._admitted(details, context):
            self._check_caller(details.method, context)
            self._be_open(details.method)
            with self._allowed(details, context) as record:
                asked = self._received(request, details.method, context) if single else request
                yield NextTurn()
                for answer in behavior(_checked(asked, details.method, record), context):
                    if not isinstance(answer, Pause):
                        record.sending(answer)
                    yield answer

    def _health(self, watch: Callable[..., Any], details: grpc.HandlerCallDetails) -> Callable[..., Any]:
        """Wrap the watching of health, which holds no thread while its stream is open."""
        admission = self._admission
        assert admission is not None

        def call(requests: Iterator[Any], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
            with self._around(details, context):
                admission.admit_health_stream(context)
                request = self._received(requests, details.method, context)
                _check(request, details.method)
                watch(request, context, send)

        call.experimental_non_blocking = True  # type: ignore[attr-defined]
        call.experimental_thread_pool = admission.kept_threads(details.method)  # type: ignore[attr-defined]
        return call

    def _received(self, requests: Iterator[Any], method: str, context: grpc.ServicerContext) -> Any:
        assert self._admission is not None
        return self._admission.request(method, requests, context)

    def _around(self, details: grpc.HandlerCallDetails, context: grpc.ServicerContext) -> "_CallContext":
        return _CallContext(self, details, context)

    def _admitted(
        self, details: grpc.HandlerCallDetails, context: grpc.ServicerContext
    ) -> AbstractContextManager[None]:
        return nullcontext() if self._admission is None else self._admission.admit(details.method, context.peer())

    def _allowed(
        self, details: grpc.HandlerCallDetails, context: grpc.ServicerContext
    ) -> AbstractContextManager[CallRecord]:
        if self._gate is None or not _is_ours(details.method):
            return nullcontext(_NoRecord())
        return self._gate.open(details.method, _metadata(details), context.peer())

    def _check_caller(self, method: str, context: grpc.ServicerContext) -> None:
        """Raise Unauthenticated or PermissionDenied unless the caller's certificate has a name that may call."""
        if self._callers and not method.startswith(_HEALTH):
            check_certificate(context, self._callers)

    def _be_open(self, method: str) -> None:
        """Raise Unavailable if our services answer no call now."""
        if _is_ours(method) and (problem := self._refuse()):
            raise Unavailable(problem)

    def _begin(self, method: str) -> None:
        if _is_ours(method):
            self._metrics.begin(method)
        with self._lock:
            self._running += 1
            self._in_use += _is_ours(method)

    def _end(self, method: str, code: str, seconds: float) -> None:
        with self._lock:
            self._running -= 1
            self._last_call = time.monotonic()
            if _is_ours(method):
                self._in_use -= 1
                self._last_use = self._last_call
        if _is_ours(method):
            self._metrics.end(method, code, seconds)
            _LOG.info("%s %s in %.0f ms", method, code, seconds * 1000)


class _CallContext:
    """Context manager around one call: log context, metrics, and exceptions to a status."""

    def __init__(self, guard: CallGuard, details: grpc.HandlerCallDetails, context: grpc.ServicerContext) -> None:
        metadata = _metadata(details)
        self._guard = guard
        self._method = details.method
        self._context = context
        self._trace = tracing.span(
            details.method.lstrip("/"),
            kind="server",
            parent=metadata.get("traceparent", ""),
            root=_is_ours(details.method),
            attributes=tracing.rpc_attributes(details.method),
        )
        self._start = time.monotonic()

    def __enter__(self) -> None:
        self._span = self._trace.__enter__()
        self._guard._begin(self._method)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            # GeneratorExit means that the caller disconnected. A code is set if abort() itself raised the exception.
            if isinstance(error, Exception) and self._context.code() is None:
                self._abort(error)
        finally:
            code = self._context.code() or (grpc.StatusCode.CANCELLED if error else grpc.StatusCode.OK)
            name = code.name if isinstance(code, grpc.StatusCode) else str(code)
            self._guard._end(self._method, name, time.monotonic() - self._start)
            self._span.answered(_known(code), server=True)
            self._trace.__exit__(None, None, None)

    def _abort(self, error: Exception) -> NoReturn:
        if isinstance(error, OSError) and error.errno in _FULL:
            _LOG.error("%s failed", self._method, exc_info=error)
            error = ResourceExhausted(f"A disk of the service is full ({error.strerror}); nothing was kept.")
        if not isinstance(error, CellsparseError):
            _LOG.error("%s failed", self._method, exc_info=error)
            error = Internal(
                f"Internal error in {self._method} ({type(error).__name__}); the service's log has details."
            )
        hidden = self._guard.hide(error.message)
        if hidden != error.message:
            _LOG.warning("%s failed: %s", self._method, error.message)
            error.message = hidden
            error.violations = [(field, self._guard.hide(said)) for field, said in error.violations]
        self._context.abort_with_status(rpc_status.to_status(to_status(error)))
        raise AssertionError("abort_with_status always raises")


def _known(code: Any) -> grpc.StatusCode:
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


class _Undecodable:
    """What stands for a request that cannot be decoded, until its call is answered."""


def _decoding(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return a decoder that does not raise: gRPC would answer INTERNAL, and log a traceback."""
    if decode is None:
        return None

    def decode_safely(data: bytes) -> Any:
        try:
            return decode(data)
        except (DecodeError, ValueError):
            return _Undecodable()

    return decode_safely


def _metadata(details: grpc.HandlerCallDetails) -> dict[str, str]:
    return {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}


def _is_ours(method: str) -> bool:
    """Whether a call is for one of our services, rather than for health or reflection."""
    return method.startswith("/cellsparse.")


def _checked(request: Any, method: str, record: CallRecord) -> Any:
    """Return the request, or an iterator that checks each of its messages; raises InvalidArgument."""
    if isinstance(request, Iterator):
        return _checked_stream(request, method, record)
    _check(request, method)
    record.asked(request)
    return request


def _checked_stream(requests: Iterator[Any], method: str, record: CallRecord) -> Iterator[Any]:
    for request in requests:
        _check(request, method)
        record.asked(request)
        yield request


def _check(request: Any, method: str) -> None:
    if isinstance(request, _Undecodable):
        raise InvalidArgument(f"What was sent to {method} is not a message of that method.")
    if not _is_ours(method):
        return
    broken = violations(request)
    if broken:
        raise InvalidArgument(" ".join(sentence for _, sentence in broken), violations=broken)
