"""What holds for every request: headers, the limit of bodies, compression of JSON, and metrics."""

import asyncio
import gzip
import time
from http import HTTPStatus

import anyio.to_thread
import grpc
from prometheus_client import CollectorRegistry, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellsparse_common.errors import CellsparseError
from cellsparse_common.rpc.metrics import CALL_BUCKETS
from cellsparse_gateway import identity
from cellsparse_gateway.body_budget import BodyBudget, HeldBody
from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_gateway.problems import Problem, from_call, from_error, respond
from cellsparse_gateway.uploads import BODY_SECONDS, HELD, too_large, too_slow
from cellsparse_proto.v1 import access_pb2

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; worker-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'"
)
SWAGGER_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
"""The viewer of the API's description sets styles on its elements."""
SESSION = "/api/v1/session"
"""Where the page signs in and out."""
SIGN_IN = frozenset({SESSION, f"{SESSION}/ways", *(f"{SESSION}/oidc{part}" for part in ("", "/callback", "/renew"))})
"""What people without a token ask for to get one."""
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
OPEN_FILES = frozenset({"/", "/favicon.ico", "/docs", "/api/v1/docs", "/api/v1/openapi.json"})
OPEN_FOLDERS = ("/static/", "/docs/", "/api/v1/docs/")
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
SMALLEST_TO_COMPRESS = 1024
LARGEST_ON_THE_LOOP = 64 * 1024
JSON_TYPES = ("application/json", "application/problem+json", "application/geo+json")


class EveryAnswer:
    """Sets the headers of `HEADERS` where an answer does not set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class BodyLimit:
    """Refuses bodies above a size: at once if the request states its length, else as soon as more has come.

    It also ends bodies that pause for long, and gives back what a body held of the budget for all of them.

    Args:
        app: What answers.
        max_mib: Largest body, MiB.
        budget: For the bodies of all requests.
    """

    def __init__(self, app: ASGIApp, max_mib: int, budget: BodyBudget) -> None:
        self._app = app
        self._max_mib = max_mib
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._max_mib * 2**20
        stated = Headers(scope=scope).get("content-length", "")
        if stated.isdigit() and int(stated) > limit:
            answer = respond(too_large(self._max_mib, " (CELLSPARSE_GATEWAY_MAX_BODY_MIB)"), {"Connection": "close"})
            await answer(scope, receive, send)
            return
        received, complete = 0, False

        async def receive_some() -> Message:
            nonlocal received, complete
            if complete:  # what comes now is that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), BODY_SECONDS)
            except TimeoutError:
                raise too_slow() from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limit:
                raise too_large(self._max_mib, " (CELLSPARSE_GATEWAY_MAX_BODY_MIB)")
            return message

        held = scope[HELD] = HeldBody(self._budget)
        try:
            await self._app(scope, receive_some, send)
        finally:
            held.drop()


class OwnSite:
    """Refuses browsers that another site sent here: without accounts nobody could tell, and with them it is as well.

    A page of another site may post to any address that its reader's browser reaches, and may point a name of its own
    at it. Programs that are no browsers send neither header.

    Args:
        app: What answers.
        hosts: Host names under which this server may be called; empty: any.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        problem = self._refusal(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await respond(problem)(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if self._hosts and host_name(host) not in self._hosts:
            return Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This server is not called {host_name(host)[:80]!r}; CELLSPARSE_GATEWAY_HOSTS lists more names.",
            )
        if method in ("GET", "HEAD", "OPTIONS"):
            return None
        origin = headers.get("origin", "")
        site = headers.get("sec-fetch-site", "")
        own = site in ("same-origin", "none") if site else origin.partition("://")[2] == host
        if origin and not own:
            return Problem(HTTPStatus.FORBIDDEN, f"Pages of {origin[:80]} may not change anything here.")
        return None


def host_name(host: str) -> str:
    """Return a host header without its port."""
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name.lower()


class SignedIn:
    """Notes who makes a request, and refuses those without a valid token where the orchestrator asks for tokens.

    The orchestrator checks each call again. Asking here keeps strangers from what the gateway does by itself.

    Args:
        app: What answers.
        orchestrator: Knows the tokens.
        required: Whether a token is needed.
    """

    def __init__(self, app: ASGIApp, orchestrator: Orchestrator, required: bool) -> None:
        self._app = app
        self._orchestrator = orchestrator
        self._required = required
        self._known = identity.Known()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = identity.token_of(Headers(scope=scope))
        identity.enter(token, (scope.get("client") or ("",))[0])
        if self._required and not is_open(scope["method"], scope["path"]) and not self._known.has(token):
            try:
                await anyio.to_thread.run_sync(self._ask)
            except grpc.RpcError as error:
                await respond(from_call(error))(scope, receive, send)
                return
            except CellsparseError as error:
                await respond(from_error(error))(scope, receive, send)
                return
            self._known.add(token)
        await self._app(scope, receive, send)

    def _ask(self) -> None:
        self._orchestrator.access.GetCaller(access_pb2.GetCallerRequest(), timeout=ASK_SECONDS)


def is_open(method: str, path: str) -> bool:
    """Return whether a request needs no token: files that are the same for all, probes, and signing in."""
    if path in SIGN_IN or path in PROBES:
        return True
    return method in ("GET", "HEAD", "OPTIONS") and (path in OPEN_FILES or path.startswith(OPEN_FOLDERS))


class CompressJson:
    """Compresses JSON that is sent in one piece, if the client accepts gzip. Pixels are compressed already."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or "gzip" not in Headers(scope=scope).get("accept-encoding", ""):
            await self._app(scope, receive, send)
            return
        start: Message = {}

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_json(message):
                start = message
            elif start and message["type"] == "http.response.body":
                first, start = start, {}
                if not message.get("more_body") and len(message.get("body", b"")) >= SMALLEST_TO_COMPRESS:
                    message = {**message, "body": await _compressed(message["body"])}
                    headers = MutableHeaders(scope=first)
                    headers["Content-Encoding"] = "gzip"
                    headers["Content-Length"] = str(len(message["body"]))
                    headers.add_vary_header("Accept-Encoding")
                await send(first)
                await send(message)
            else:
                await send(message)

        await self._app(scope, receive, send_compressed)


def _is_json(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    kind = headers.get("content-type", "").partition(";")[0]
    return kind in JSON_TYPES and "content-encoding" not in headers


async def _compressed(body: bytes) -> bytes:
    if len(body) <= LARGEST_ON_THE_LOOP:
        return gzip.compress(body, 5)
    return await anyio.to_thread.run_sync(gzip.compress, body, 5)


class RequestMetrics:
    """Times requests by route, method and status. Of a stream it is the time until it ends."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram(
            "cellsparse_http_seconds",
            "Time that HTTP requests took.",
            ["route", "method", "status"],
            buckets=CALL_BUCKETS,
            registry=registry,
        )
        self._running = Gauge("cellsparse_http_running", "HTTP requests that are being answered.", registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value
        begin = time.monotonic()

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._running.inc()
        try:
            await self._app(scope, receive, send_and_look)
        finally:
            self._running.dec()
            self._seconds.labels(pattern(scope), scope["method"], str(status)).observe(time.monotonic() - begin)


def pattern(scope: Scope) -> str:
    """Return a request's address with its parameters by name: ids would make a series of their own each.

    The route that served it knows its address only from where it was included.
    """
    if "route" not in scope:
        return "other"
    parts = scope["path"].split("/")
    for name, value in scope.get("path_params", {}).items():
        if str(value) in parts:
            parts[parts.index(str(value))] = f"{{{name}}}"
    return "/".join(parts)
