"""Records HTTP requests as spans, where traces are sent."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellsparse_common import tracing
from cellsparse_gateway.middleware import PROBES, pattern

_SERVERS_FAULT = 500


class RequestTraces:
    """Begins a trace with each request, or joins that of its `traceparent`; of a stream it is the time until it ends.

    Probes are left out: they come every few seconds.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        parent = Headers(scope=scope).get("traceparent", "")
        attributes: tracing.Attributes = {"http.request.method": method, "url.path": scope["path"]}
        with tracing.span(method, kind="server", parent=parent, root=True, attributes=attributes) as span:

            async def send_and_look(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set("http.response.status_code", message["status"])
                    if message["status"] >= _SERVERS_FAULT:
                        span.fail(str(message["status"]))
                await send(message)

            try:
                await self._app(scope, receive, send_and_look)
            finally:
                route = pattern(scope)
                span.set("http.route", route)
                span.rename(f"{method} {route}")
