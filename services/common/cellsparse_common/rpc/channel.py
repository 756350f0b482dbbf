"""Channels to other services."""

from collections.abc import Callable
from typing import Any

import grpc

from cellsparse_common import tracing
from cellsparse_common.config.tls import ClientTls, channel_credentials, expected_name

MAX_MESSAGE_MIB = 128
KEEPALIVE_SECONDS, KEEPALIVE_TIMEOUT_SECONDS = 10, 10
"""Interval of keepalive pings, and how long a busy machine may take to answer one."""
CONNECT_SECONDS = 5.0
"""How long a connection may take to come about: a busy machine takes its time for handshakes. A peer that is not there
refuses it at once, and calls end at their own deadline."""

_TLS: ClientTls | None = None


def use_tls(tls: ClientTls | None) -> None:
    """Set the TLS that `open_channel` uses by default in this process; None: no TLS."""
    global _TLS  # like the configuration of logging: one for the process, set by its main()
    _TLS = tls


def open_channel(
    address: str,
    *,
    max_message_mib: int = MAX_MESSAGE_MIB,
    tls: ClientTls | None = None,
    token: str = "",
    own_connection: bool = False,
) -> grpc.Channel:
    """Open a channel that detects a dead peer and forwards the current trace.

    The pause between connection attempts grows to one second at most, because services restart within seconds.

    Args:
        address: host:port.
        max_message_mib: Largest message to receive or send, MiB.
        tls: Certificates; None: those of `use_tls`, else a plaintext channel.
        token: Shown with every call; empty: none.
        own_connection: Whether it connects for itself. Otherwise gRPC lets a process' channels to one address share a
            connection, so that all their calls reach the same replica of a service.

    Raises:
        InvalidArgument: A file of `tls` cannot be read.
    """
    options = _options(max_message_mib)
    if own_connection:
        options.append(("grpc.use_local_subchannel_pool", 1))
    return grpc.intercept_channel(_ByName(_open(address, options, tls or _TLS)), _MetadataInterceptor(token))


def open_aio_channel(address: str) -> grpc.aio.Channel:
    """Open a channel as `open_channel` does by default, for calls in an asyncio loop; they are not recorded in traces.

    Args:
        address: host:port.

    Raises:
        InvalidArgument: A file of the TLS of this process cannot be read.
    """
    options = _options(MAX_MESSAGE_MIB)
    if _TLS is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, channel_credentials(_TLS), options=_with_name(options, _TLS, address))


def outgoing_metadata() -> list[tuple[str, str]]:
    """Return the metadata that `open_channel` adds to a call by itself and `open_aio_channel` does not."""
    return [("traceparent", parent)] if (parent := tracing.outgoing()) else []


def _options(max_message_mib: int) -> list[tuple[str, int | str]]:
    limit = max_message_mib * 2**20
    return [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", int(1000 * CONNECT_SECONDS)),  # of one attempt, in spite of its name
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.enable_http_proxy", 0),
    ]


def _open(address: str, options: list[tuple[str, int | str]], tls: ClientTls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, channel_credentials(tls), options=_with_name(options, tls, address))


def _with_name(options: list[tuple[str, int | str]], tls: ClientTls, address: str) -> list[tuple[str, int | str]]:
    """Return options with the name that the certificate of a peer has to have."""
    name = expected_name(tls, address)
    return [*options, ("grpc.ssl_target_name_override", name)] if name else options


class _ByName(grpc.Channel):  # type: ignore[misc]
    """A channel whose methods are called by name, so that a call on a closed channel is an error.

    Generated stubs ask for a handle of each method, and an intercepted channel does so at every call. That look-up is
    not thread-safe, and it crashes the process when another thread has closed the channel (grpcio 1.85,
    `Channel._get_registered_call_handle`).
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *serializers: Any, _registered_method: bool = False, **named: Any) -> Any:
        return self._channel.unary_unary(method, *serializers[:2], **named)

    def unary_stream(self, method: str, *serializers: Any, _registered_method: bool = False, **named: Any) -> Any:
        return self._channel.unary_stream(method, *serializers[:2], **named)

    def stream_unary(self, method: str, *serializers: Any, _registered_method: bool = False, **named: Any) -> Any:
        return self._channel.stream_unary(method, *serializers[:2], **named)

    def stream_stream(self, method: str, *serializers: Any, _registered_method: bool = False, **named: Any) -> Any:
        return self._channel.stream_stream(method, *serializers[:2], **named)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> "_ByName":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Details(grpc.ClientCallDetails):  # type: ignore[misc]
    def __init__(self, original: grpc.ClientCallDetails, metadata: list[tuple[str, str]]) -> None:
        self.method = original.method
        self.timeout = original.timeout
        self.metadata = metadata
        self.credentials = original.credentials
        self.wait_for_ready = original.wait_for_ready
        self.compression = original.compression


class _MetadataInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Adds the `traceparent` of the current span, and the token, to the metadata of every call, and records it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def _call(self, continuation: Callable[..., Any], details: grpc.ClientCallDetails, request: Any) -> Any:
        span = tracing.begin(
            details.method.lstrip("/"), kind="client", attributes=tracing.rpc_attributes(details.method)
        )
        more = [("traceparent", parent)] if (parent := span.traceparent or tracing.outgoing()) else []
        if self._token:
            more.append(("authorization", f"Bearer {self._token}"))
        if more:
            details = _Details(details, [*(details.metadata or ()), *more])
        if not span.recording:
            return continuation(details, request)
        try:
            call = continuation(details, request)
        except BaseException as error:
            span.fail(type(error).__name__)
            span.end()
            raise
        call.add_done_callback(lambda done: _end(span, done))
        return call

    intercept_unary_unary = _call
    intercept_unary_stream = _call
    intercept_stream_unary = _call
    intercept_stream_stream = _call


def _end(span: tracing.Span, call: Any) -> None:
    span.answered(call.code() or grpc.StatusCode.OK, server=False)
    span.end()
