"""A collector of traces on loopback: takes OTLP over HTTP, as an OpenTelemetry collector does."""

import gzip
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Recorded:
    """A span that came in."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, str | int | bool]
    failed: bool


class TraceCollector:
    """`with TraceCollector() as collector:` gives one that answers.

    Args:
        answers: Whether it takes spans; else it accepts connections and says nothing, as a collector that hangs.
    """

    def __init__(self, *, answers: bool = True) -> None:
        self._spans: list[Recorded] = []
        self._lock = threading.Lock()
        self._release = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if not answers:
                    collector._release.wait()
                    return
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector._take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> "TraceCollector":
        threading.Thread(target=self._server.serve_forever, name="collector", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._release.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a service that sends here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_address[1]}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    @property
    def spans(self) -> list[Recorded]:
        """All spans so far."""
        with self._lock:
            return list(self._spans)

    def trace(self, of: Recorded) -> list[Recorded]:
        """All spans so far of the trace that a span belongs to."""
        return [span for span in self.spans if span.trace == of.trace]

    def _take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found = Recorded(
                        service=str(service),
                        name=span.name,
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        attributes=_attributes(span.attributes),
                        failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    )
                    with self._lock:
                        self._spans.append(found)


def _attributes(pairs: Iterable) -> dict[str, str | int | bool]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def parents(span: Recorded, spans: Iterable[Recorded]) -> list[Recorded]:
    """The spans above one, up to the first of the trace; fails where one is missing."""
    by_id = {each.id: each for each in spans}
    above = []
    while span.parent:
        span = by_id[span.parent]
        above.append(span)
    return above
