"""Channels to other services."""

from collections.abc import Callable
from typing import Any

import grpc

from cellsparse_common.logs import traceparent

MAX_MESSAGE_MIB = 128
KEEPALIVE_SECONDS = 10


def open_channel(address: str, *, max_message_mib: int = MAX_MESSAGE_MIB) -> grpc.Channel:
    """Open a plaintext channel that notices a dead peer and passes the current trace on.

    Connection attempts back off to at most one second: services here start and restart within seconds.

    Args:
        address: host:port.
        max_message_mib: Largest message to receive or send, MiB.
    """
    limit = max_message_mib * 2**20
    channel = grpc.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", 3000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0),
        ],
    )
    return grpc.intercept_channel(channel, _TraceInterceptor())


class _Details(grpc.ClientCallDetails):  # type: ignore[misc]
    def __init__(self, original: grpc.ClientCallDetails, metadata: list[tuple[str, str]]) -> None:
        self.method = original.method
        self.timeout = original.timeout
        self.metadata = metadata
        self.credentials = original.credentials
        self.wait_for_ready = original.wait_for_ready
        self.compression = original.compression


class _TraceInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
):
    """Adds the context's `traceparent` to outgoing metadata."""

    def _call(self, continuation: Callable[..., Any], details: grpc.ClientCallDetails, request: Any) -> Any:
        parent = traceparent()
        if parent:
            details = _Details(details, [*(details.metadata or ()), ("traceparent", parent)])
        return continuation(details, request)

    intercept_unary_unary = _call
    intercept_unary_stream = _call
    intercept_stream_unary = _call
