"""Traces in the form of OpenTelemetry, sent to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names.

Without that variable nothing is loaded and nothing recorded. The current span is the W3C `traceparent` of the log
context: every line of the log and every outgoing call names it, and a process that records nothing passes it on all
the same.

OpenTelemetry's own instrumentation of gRPC keeps the current span in a context of its own, beside that of the logs, and
begins a trace for every call that a service makes on its own account, such as looking after trainers every second.
"""

import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import grpc

from cellsparse_common.logs import log_context, traceparent

if TYPE_CHECKING:
    from cellsparse_common.trace_export import TraceExport

_LOG = logging.getLogger(__name__)
Kind = Literal["client", "internal", "server"]
Attributes = Mapping[str, str | int | bool]
PROTOCOL = "http/protobuf"
STOP_SECONDS = 2.0
"""How long the end of a process may wait for a collector to take the last spans."""
CHILD_DELAY_MS = 500
"""How long spans of a process that may be killed without warning wait to be sent, milliseconds."""
ENVIRONMENT = "TRACEPARENT"
"""Variable that hands the current span to a child process."""
_VALID = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SERVERS_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Status codes that are a failure of the server, as OpenTelemetry's conventions have it."""


class Span:
    """A piece of work under way, or nothing where it is not recorded.

    Args:
        recorded: The span of OpenTelemetry; None: nothing is recorded.
        traceparent: Its W3C `traceparent`; empty without a span.
    """

    def __init__(self, recorded: Any = None, traceparent: str = "") -> None:
        self._recorded = recorded
        self.traceparent = traceparent

    @property
    def recording(self) -> bool:
        """Whether anything is kept of it."""
        return self._recorded is not None

    def rename(self, name: str) -> None:
        """Give it a name that was not known at its beginning."""
        if self._recorded is not None:
            self._recorded.update_name(name)

    def set(self, name: str, value: str | int | bool) -> None:
        """Set an attribute."""
        if self._recorded is not None:
            self._recorded.set_attribute(name, value)

    def fail(self, why: str) -> None:
        """Say that the work failed. `why` names a kind of error, not what somebody sent: traces are read by many."""
        if self._recorded is not None:
            from opentelemetry.trace import Status, StatusCode

            self._recorded.set_status(Status(StatusCode.ERROR, why))

    def answered(self, code: grpc.StatusCode, *, server: bool) -> None:
        """Note the status of a call.

        Args:
            code: Its status.
            server: Whether this is the side that answered; a refusal is no failure there.
        """
        self.set("rpc.grpc.status_code", int(code.value[0]))
        if code in _SERVERS_FAULTS or (not server and code is not grpc.StatusCode.OK):
            self.fail(code.name)

    def end(self) -> None:
        """Note that the work is done."""
        if self._recorded is not None:
            self._recorded.end()


_EXPORT: "TraceExport | None" = None


def start(service: str, *, delay_ms: int | None = None) -> None:
    """Record traces from now on, if the environment names a collector. Called by a process' `main`.

    Args:
        service: Name of the service; OTEL_SERVICE_NAME wins.
        delay_ms: How long spans wait to be sent together, milliseconds; None: as OTEL_BSP_SCHEDULE_DELAY says.
    """
    global _EXPORT  # like the configuration of logging: one for the process, set by its main()
    if _EXPORT is not None or not wanted(os.environ):
        return
    try:
        from cellsparse_common.trace_export import TraceExport

        _EXPORT = TraceExport(service, delay_ms)
    except Exception as error:  # noqa: BLE001 - whatever it is, the service is worth more than its traces
        _LOG.error("no traces are sent: %s: %s", type(error).__name__, error)


def wanted(environment: Mapping[str, str]) -> bool:
    """Return whether the standard variables ask for traces that we can send."""

    def given(name: str) -> str:
        return environment.get(name, "").strip()

    if not (given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or given("OTEL_EXPORTER_OTLP_ENDPOINT")):
        return False
    if given("OTEL_SDK_DISABLED").lower() == "true" or given("OTEL_TRACES_EXPORTER") not in ("", "otlp"):
        return False
    protocol = given("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or given("OTEL_EXPORTER_OTLP_PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        _LOG.error("no traces are sent: OTEL_EXPORTER_OTLP_PROTOCOL is %r; allowed is %s.", protocol, PROTOCOL)
    return protocol == PROTOCOL


def stop(seconds: float = STOP_SECONDS) -> None:
    """Send what is left, within some seconds; what is not sent by then is lost. Idempotent."""
    global _EXPORT
    export, _EXPORT = _EXPORT, None
    if export is not None:
        export.close(seconds)


def service() -> str:
    """Return the name that `start` was given; empty: nothing is recorded."""
    return "" if _EXPORT is None else _EXPORT.service


def begin(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    root: bool = False,
    attributes: Attributes | None = None,
) -> Span:
    """Begin a span that the caller ends; `span` does both.

    Args:
        name: What is done, without ids.
        kind: Whether it calls another service or answers one.
        parent: The `traceparent` it belongs to; None: the current one.
        root: Whether it begins a trace where it belongs to none. Else nothing is recorded then.
        attributes: More about it.
    """
    export = _EXPORT
    if export is None:
        return _NOTHING
    parent = valid(traceparent() if parent is None else parent)
    if not parent and not root:
        return _NOTHING
    return Span(*export.begin(name, kind, parent, attributes or {}))


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    root: bool = False,
    attributes: Attributes | None = None,
) -> Iterator[Span]:
    """Record the `with` block as a span, which is the current one inside; see `begin`.

    Where nothing is recorded, `parent` is the current one inside all the same.
    """
    begun = begin(name, kind=kind, parent=parent, root=root, attributes=attributes)
    current = begun.traceparent or (None if parent is None else valid(parent))
    try:
        with log_context(traceparent=current):
            yield begun
    except Exception as error:
        begun.fail(type(error).__name__)
        raise
    finally:
        begun.end()


def valid(parent: str) -> str:
    """Return a `traceparent` that came from elsewhere; empty if it breaks the rules."""
    return parent if _VALID.fullmatch(parent) else ""


def outgoing() -> str:
    """Return the `traceparent` for calls made now; empty: none.

    A call that belongs to no trace, because this service makes it on its own account, says so: else the callee would
    begin a trace for each.
    """
    current = traceparent()
    if current or _EXPORT is None:
        return current
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def rpc_attributes(method: str) -> dict[str, str | int | bool]:
    """Return the attributes of a call of a gRPC method, "/package.Service/Method"."""
    called, _, name = method.lstrip("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": called, "rpc.method": name}


_NOTHING = Span()
