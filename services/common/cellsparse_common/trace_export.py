"""Recording and sending spans with OpenTelemetry, loaded by `cellsparse_common.tracing` only where it is wanted."""

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_LOG = logging.getLogger(__name__)
_QUIET_SECONDS = 60.0
"""Shortest time between two lines about a collector that does not answer."""
_KINDS = {"client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL, "server": SpanKind.SERVER}


class TraceExport:
    """Sends spans in the background, some seconds later and many together.

    A queue of bounded length holds them. What does not fit, or cannot be sent in time, is dropped: no work ever waits.

    Args:
        service: Name of the service; OTEL_SERVICE_NAME wins.
        delay_ms: How long spans wait to be sent together, milliseconds; None: as OTEL_BSP_SCHEDULE_DELAY says.
    """

    def __init__(self, service: str, delay_ms: int | None) -> None:
        self.service = service
        name = os.environ.get("OTEL_SERVICE_NAME", "").strip() or f"cellsparse-{service}"
        # We end it ourselves: at exit it would wait for a dead collector.
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
        exporter = _Quiet(OTLPSpanExporter())
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay_ms))
        self._tracer = self._provider.get_tracer("cellsparse")
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self, name: str, kind: str, parent: str, attributes: Mapping[str, str | int | bool]
    ) -> tuple[Span | None, str]:
        """Begin a span.

        Args:
            name: What is done.
            kind: client, internal or server.
            parent: A valid `traceparent`; empty: none.
            attributes: More about it.

        Returns:
            The span, None if the sampler leaves it out, and its `traceparent`.
        """
        context = self._propagator.extract({"traceparent": parent} if parent else {})
        span = self._tracer.start_span(name, context=context, kind=_KINDS[kind], attributes=attributes)
        found = span.get_span_context()
        header = f"00-{format_trace_id(found.trace_id)}-{format_span_id(found.span_id)}-{found.trace_flags:02x}"
        return (span if span.is_recording() else None), header

    def close(self, seconds: float) -> None:
        """Send what is left, within some seconds."""
        # The SDK's own limit is the time of one request, 10 s by default.
        thread = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        thread.start()
        thread.join(seconds)


class _Quiet(SpanExporter):
    """An exporter whose failures take one line of the log a minute, and no traceback."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._next_line = 0.0
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - whatever it is, these spans are lost and nothing else
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + _QUIET_SECONDS
                _LOG.warning("the collector of traces takes none; %d spans are lost so far", self._lost)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
