"""Metrics for Prometheus, on /metrics of the port CELLSPARSE_METRICS_PORT. Nothing listens if that is not set.

All names; a test compares this table with what the services answer. Histograms end in `_bucket`, `_sum`
and `_count`. A method is written as "TrainerService/Predict", a state or reason as in the protos, without its prefix.

| Name | Kind | Labels | Service | What |
|---|---|---|---|---|
| cellsparse_call_seconds | histogram | method, code | all | time that gRPC calls took, by their status |
| cellsparse_calls_running | gauge | method | all | gRPC calls and streams in progress |
| cellsparse_http_seconds | histogram | route, method, status | gateway | time of HTTP requests, or of whole streams |
| cellsparse_http_running | gauge | | gateway | HTTP requests and streams in progress |
| cellsparse_runs | gauge | state | orchestrator | runs in the database |
| cellsparse_queue_length | gauge | | orchestrator | runs waiting for their first attempt |
| cellsparse_queue_seconds | histogram | | orchestrator | time from a run's creation to its first attempt |
| cellsparse_attempts_total | counter | backend, reason | orchestrator | attempts ended: SUCCEEDED, CANCELLED, or why |
| cellsparse_reconcile_seconds | histogram | | orchestrator | time of one look at all runs |
| cellsparse_leads | gauge | | orchestrator | 1 while it leads; of several on a database one does |
| cellsparse_ready | gauge | | orchestrator | 1 while it has all that it needs: database, store, disk, reconciler |
| cellsparse_store_away | gauge | | orchestrator | 1 while attempts wait for the object store |
| cellsparse_quota_used | gauge | project, quota | orchestrator | share of a project's quota in use, 0 to 1 |
| cellsparse_predictions_waiting | gauge | backend | orchestrator | calls that wait for a trainer to start |
| cellsparse_inference_queue_length | gauge | | trainer | calls in its queue, and those told to come back |
| cellsparse_cached_models | gauge | | trainer | models that it has downloaded |
| cellsparse_cached_model_bytes | gauge | | trainer | bytes of these |
| cellsparse_training_steps_total | counter | | trainer | optimizer steps done |
| cellsparse_training_step_seconds | gauge | | trainer | mean seconds per step between the newest two reports |
| cellsparse_training_loss | gauge | | trainer | training loss, as in the newest report |
| cellsparse_training_score | gauge | | trainer | newest validation score, 0 to 1 |
| cellsparse_sparsified_images_total | counter | | sparsifier | images and stacks sparsified |
| cellsparse_sparsified_pixels_total | counter | | sparsifier | pixels of these |

The usual `process_*` metrics come on top. The same port answers, with 200 or else 503, /health while the server lives,
/answering while it answers calls, and /ready while it has all that it needs. Kubelets ask there with TLS, since their
gRPC probe does not speak it.
"""

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, start_http_server

from cellsparse_common.errors import Unavailable

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

HEALTH_PATH = "/health"
ANSWERING_PATH = "/answering"
READY_PATH = "/ready"
CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
"""Upper bounds in seconds: from a look into the database to an evaluation of a whole dataset."""


def new_registry() -> CollectorRegistry:
    """Return the registry of one service, with the metrics of its process."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    return registry


class CallMetrics:
    """Metrics of gRPC calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "cellsparse_call_seconds",
            "Time that gRPC calls took.",
            ["method", "code"],
            buckets=CALL_BUCKETS,
            registry=registry,
        )
        self._running = Gauge(
            "cellsparse_calls_running", "gRPC calls that are being answered.", ["method"], registry=registry
        )

    def begin(self, method: str) -> None:
        """Count a call that starts; `method` is the full path."""
        self._running.labels(_short(method)).inc()

    def end(self, method: str, code: str, seconds: float) -> None:
        """Count a call that ended with the status `code`."""
        self._running.labels(_short(method)).dec()
        self._seconds.labels(_short(method), code).observe(seconds)


def serve_metrics(
    registry: CollectorRegistry,
    host: str,
    port: int,
    healthy: Callable[[], bool] = lambda: True,
    answers: Callable[[], bool] | None = None,
    ready: Callable[[], bool] | None = None,
) -> Callable[[], None]:
    """Serve the metrics in a separate thread and return a function that stops it. Port 0 serves nothing.

    Args:
        registry: The metrics.
        host: Address to listen on.
        port: TCP port.
        healthy: Whether the server lives, for HEALTH_PATH.
        answers: Whether it answers calls, for ANSWERING_PATH; None: as `healthy`.
        ready: Whether it has all that it needs, for READY_PATH; None: as `healthy`.

    Raises:
        Unavailable: The address cannot be bound.
    """
    if not port:
        return lambda: None
    try:
        server, thread = start_http_server(port, addr=host.strip("[]"), registry=registry)
    except OSError as error:
        raise Unavailable(f"Metrics cannot be served on {host}:{port}: {error.strerror or error}.") from error
    metrics = server.get_app()
    assert metrics is not None
    asked = {HEALTH_PATH: healthy, ANSWERING_PATH: answers or healthy, READY_PATH: ready or healthy}

    def answer(environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        ask = asked.get(environ["PATH_INFO"])
        if ask is None:
            return metrics(environ, start_response)
        status, text = ("200 OK", b"SERVING\n") if ask() else ("503 Service Unavailable", b"NOT_SERVING\n")
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        return [text]

    server.set_app(answer)
    return lambda: _end(server, thread)


def _end(server: WSGIServer, thread: threading.Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join(5.0)


def _short(method: str) -> str:
    """Return "TrainerService/Predict" for "/cellsparse.v1.TrainerService/Predict"."""
    return method.lstrip("/").rpartition("/")[0].rpartition(".")[2] + "/" + method.rpartition("/")[2]
