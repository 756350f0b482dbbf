"""A gRPC server with health, reflection, limits and a graceful shutdown."""

import logging
import signal
import threading
import time
from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from cellsparse_common import tracing
from cellsparse_common.config.exposure import refuse_exposure
from cellsparse_common.config.settings import ServerSettings
from cellsparse_common.config.tls import server_credentials
from cellsparse_common.errors import Unavailable
from cellsparse_common.files import replace_file
from cellsparse_common.imaging import decoder_process, decoding_budget
from cellsparse_common.process_ids import is_alive
from cellsparse_common.rpc.admission import Admission, most_waiting, new_threads
from cellsparse_common.rpc.interceptor import CallGuard, Gate
from cellsparse_common.rpc.metrics import CallMetrics, new_registry, serve_metrics
from cellsparse_common.rpc.private_paths import private_paths
from cellsparse_common.rpc.readiness import Readiness
from cellsparse_common.rpc.reflection import serve_reflection

_LOG = logging.getLogger(__name__)
ORPHAN_SECONDS = 60.0


def serve(
    *,
    name: str,
    settings: ServerSettings,
    add: Callable[[grpc.Server], list[str]],
    started: Callable[[str], None] = lambda _: None,
    drain: Callable[[], None] = lambda: None,
    stop: Callable[[], None] = lambda: None,
    busy: Callable[[], bool] = lambda: False,
    registry: CollectorRegistry | None = None,
    refuse: Callable[[], str] = lambda: "",
    missing: Callable[[], str] = lambda: "",
    gate: Gate | None = None,
    watchers: int | None = None,
    how_to_authenticate: str = "CELLSPARSE_TLS_CLIENT_CA",
) -> int:
    """Serve until SIGTERM or SIGINT.

    On shutdown health becomes NOT_SERVING, new calls are refused, running calls have `drain_seconds` to finish, and
    `stop` cleans up.

    Args:
        name: Name of the service in logs.
        settings: Address, limits and times.
        add: Registers the servicers on the server and returns their full service names.
        started: Called with host:port once the server is ready.
        drain: Called when shutdown begins. Long streams should end soon.
        stop: Called after the last call has ended.
        busy: Whether work is running that must not be interrupted. Checked before a server that lost its owner, or is
            unused, stops itself.
        registry: The service's own metrics. Those of its calls are added. All are served on `metrics_port`.
        refuse: Says why the server answers no call now; empty: it does. Then each is answered with UNAVAILABLE and this
            sentence, and health says NOT_SERVING for `ANSWERING` and its services, while the server as a whole is
            SERVING: it need not be restarted.
        missing: Says what is away that its services need; empty: nothing. Then health says NOT_SERVING for its
            services. They answer calls all the same.
        gate: Decides who may call its services; None: everybody. Health and reflection are open to all who may
            connect; reflection only to the callers that the settings name, if they do.
        watchers: Streams that only wait which may be open at once; None: as many as other calls (see `Admission`).
        how_to_authenticate: The settings that make it ask who calls, for messages.

    Returns:
        The exit code, 0.

    Raises:
        Unavailable: The address cannot be bound.
        InvalidArgument: The certificate cannot be used.
        FailedPrecondition: Others on the network would reach it without TLS, or without saying who they are.
    """
    refuse_exposure(
        name,
        f"{settings.host}:{settings.port}",
        tls="" if settings.server_tls() else "CELLSPARSE_TLS_CERT and CELLSPARSE_TLS_KEY",
        authentication="" if gate or settings.tls_client_ca else how_to_authenticate,
        insecure=settings.insecure,
    )
    decoding_budget.BUDGET.set_limit(settings.max_decoded_mib * 2**20)
    decoder_process.decode_apart()
    limit = settings.max_message_mib * 2**20
    registry = registry or new_registry()
    guard = CallGuard(
        CallMetrics(registry),
        Admission(settings.workers, watchers),
        refuse,
        private_paths(settings).hide,
        gate,
        settings.callers(),
    )
    server = grpc.server(
        new_threads(settings.workers),
        interceptors=[guard],
        maximum_concurrent_rpcs=most_waiting(settings.workers),
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    services = add(server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    serve_reflection([*services, health.SERVICE_NAME], server)
    try:
        port = _bind(server, settings)
    except RuntimeError as error:
        raise Unavailable(
            f"{name} cannot listen on {settings.host}:{settings.port}: it is in use or not ours."
        ) from error
    answering = threading.Event()
    end_metrics = serve_metrics(
        registry,
        settings.host,
        settings.metrics_port,
        answering.is_set,
        lambda: answering.is_set() and not refuse(),
        lambda: answering.is_set() and not (refuse() or missing()),
    )
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    server.start()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    answering.set()
    address = f"{settings.host}:{port}"
    started(address)
    readiness = Readiness(checks, services, refuse, missing)
    readiness.start()
    if settings.address_file:  # last, as it tells those who wait that all is there
        replace_file(settings.address_file, address)
    _LOG.info("%s answers on %s", name, address)
    _wait(
        end,
        settings,
        lonely=lambda: guard.seconds_idle() > ORPHAN_SECONDS and not busy(),
        seconds_unused=lambda: 0.0 if busy() else guard.seconds_unused(),
    )
    _LOG.info("%s is ending", name)
    answering.clear()
    readiness.stop()
    checks.enter_graceful_shutdown()
    drain()
    server.stop(settings.drain_seconds).wait(settings.drain_seconds + 5)
    stop()
    end_metrics()
    tracing.stop()
    return 0


def _bind(server: grpc.Server, settings: ServerSettings) -> int:
    """Bind the server's address and return its port; raises InvalidArgument, and RuntimeError if it is in use."""
    address = f"{settings.host}:{settings.port}"
    tls = settings.server_tls()
    if tls is None:
        return int(server.add_insecure_port(address))
    return int(server.add_secure_port(address, server_credentials(tls)))


def time_left(context: grpc.ServicerContext, at_most: float) -> float:
    """Return the seconds that a call may still take: the caller's deadline, bounded by `at_most`."""
    remaining = context.time_remaining()
    return at_most if remaining is None else max(0.0, min(remaining, at_most))


def _wait(
    end: threading.Event, settings: ServerSettings, *, lonely: Callable[[], bool], seconds_unused: Callable[[], float]
) -> None:
    """Wait for a signal, for the end of the owner process, or for a long time without use."""
    owner_pid, limit = settings.owner_pid, settings.exit_unused_seconds
    used = time.monotonic()
    while not end.wait(min(5.0, limit or 5.0) if owner_pid or limit else 3600.0):
        if owner_pid and not is_alive(owner_pid) and lonely():
            _LOG.warning("owner process %d is gone and nobody calls: ending", owner_pid)
            return
        # Running work counts as use, even without calls.
        used = max(used, time.monotonic() - seconds_unused())
        if limit and time.monotonic() - used > limit:
            _LOG.warning("nobody has called for %g s: ending", limit)
            return
