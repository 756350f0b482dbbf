"""Serve the application: bind, tell the address, and end in bounded time."""

import asyncio
import logging
import socket
from types import FrameType

import uvicorn

from cellsparse_common import tracing
from cellsparse_common.config.exposure import refuse_exposure
from cellsparse_common.errors import CellsparseError, Unavailable
from cellsparse_common.files import replace_file
from cellsparse_common.imaging import decoder_process, decoding_budget
from cellsparse_common.process_ids import is_alive
from cellsparse_gateway.app import create_app
from cellsparse_gateway.calls import Orchestrator
from cellsparse_gateway.events import EventStreams
from cellsparse_gateway.settings import GatewaySettings

_LOG = logging.getLogger(__name__)
KEEP_ALIVE_SECONDS = 75
LOOK_SECONDS = 5.0
ORPHAN_SECONDS = 60.0
_HOW_TO_HTTPS = (
    "CELLSPARSE_GATEWAY_HTTPS_CERT and CELLSPARSE_GATEWAY_HTTPS_KEY, or behind a proxy with HTTPS "
    "CELLSPARSE_GATEWAY_BEHIND_HTTPS=1"
)


def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT: then event streams end at once, other requests within `drain_seconds`.

    Raises:
        Unavailable: The address cannot be bound.
        InvalidArgument: A certificate cannot be read.
        FailedPrecondition: Others on the network would reach it without HTTPS, or without a token.
    """
    refuse_exposure(
        "gateway",
        f"{settings.host}:{settings.port}",
        tls="" if settings.https_cert or settings.behind_https else _HOW_TO_HTTPS,
        authentication="" if settings.auth != "off" else "CELLSPARSE_AUTH=tokens",
        insecure=settings.insecure,
    )
    decoding_budget.BUDGET.set_limit(settings.max_decoded_mib * 2**20)
    decoder_process.decode_apart()
    listener = _bind(settings)
    orchestrator = Orchestrator(settings.orchestrator, settings.home, settings.client_tls())
    streams = EventStreams()
    config = uvicorn.Config(
        create_app(settings, orchestrator, streams),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        lifespan="on",
        ssl_certfile=settings.https_cert,
        ssl_keyfile=settings.https_key,
    )
    server = _Server(config, settings, orchestrator, streams)
    server.run(sockets=[listener])
    tracing.stop()
    _LOG.info("gateway has ended")


def _bind(settings: GatewaySettings) -> socket.socket:
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it an answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Connections of a gateway that has just ended do not keep its port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, settings.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"The gateway cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
            "CELLSPARSE_GATEWAY_PORT takes another port, 0 a free one."
        ) from error
    return listener


class _Server(uvicorn.Server):
    """A server that writes its address file, ends event streams first, and exits with code 0 after a signal."""

    def __init__(
        self, config: uvicorn.Config, settings: GatewaySettings, orchestrator: Orchestrator, streams: EventStreams
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._orchestrator = orchestrator
        self._streams = streams
        self._owner: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        address = f"{self._settings.host}:{sockets[0].getsockname()[1]}"
        _LOG.info("gateway answers on %s://%s", "https" if self._settings.https_cert else "http", address)
        if self._settings.address_file:
            replace_file(self._settings.address_file, address)
        if self._settings.owner_pid:
            self._owner = asyncio.ensure_future(self._watch_owner(self._settings.owner_pid))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _LOG.info("gateway is ending")
        self._streams.close()
        if self._owner is not None:
            self._owner.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Unlike uvicorn's own, which raises the signal again at the end.
        self.should_exit = True

    async def _watch_owner(self, pid: int) -> None:
        """End this server a minute after its owner has gone, unless another orchestrator answers."""
        gone = 0.0
        while gone < ORPHAN_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            gone = 0.0 if is_alive(pid) or await asyncio.to_thread(self._answers) else gone + LOOK_SECONDS
        _LOG.warning("owner process %d is gone and no orchestrator answers: ending", pid)
        self.should_exit = True

    def _answers(self) -> bool:
        try:
            self._orchestrator.answers(LOOK_SECONDS)
        except (CellsparseError, Exception):  # noqa: BLE001 - whatever it is, it does not answer
            return False
        return True
