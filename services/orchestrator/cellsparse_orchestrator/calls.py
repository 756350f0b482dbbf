"""Calls to other services, some on behalf of a client whose deadline and cancellation they pass on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from cellsparse_common.datasets import missing_manifest
from cellsparse_common.errors import CellsparseError, NotFound, Unavailable, from_rpc_error, was_answered
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.rpc.server import time_left
from cellsparse_orchestrator.launchers.base import Launcher
from cellsparse_orchestrator.launchers.probe import probe

_PROBE_SECONDS = 4.0


class MessageSource:
    """The messages of a stream to a service; keeps what their iterator raises for the thread that waits for the answer.

    Raising in gRPC's own thread would log a traceback. The stream ends early instead, and the service refuses it,
    because its last message is missing.

    Args:
        messages: The messages.
    """

    def __init__(self, messages: Iterator[Message]) -> None:
        self._messages = messages
        self._failure: Exception | None = None

    def __iter__(self) -> "MessageSource":
        return self

    def __next__(self) -> Message:
        if self._failure is not None:
            raise StopIteration
        try:
            return next(self._messages)
        except StopIteration:
            raise
        except Exception as error:
            self._failure = error
            raise StopIteration from error

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise what the iterator raised in place of the service's refusal."""
        try:
            yield
        except CellsparseError:
            if self._failure is not None:
                raise self._failure from None
            raise


@contextmanager
def known_dataset(dataset_id: str) -> Iterator[None]:
    """Turn another service's "not found" into a failure of the store: the database lists the dataset."""
    try:
        yield
    except NotFound as error:
        if any(field == "dataset_id" for field, _ in error.violations):
            raise missing_manifest(dataset_id) from error
        raise


def call_service(
    launcher: Launcher,
    name: str,
    context: grpc.ServicerContext,
    at_most: float,
    call: Callable[[grpc.Channel, float], Any],
) -> Any:
    """Make a unary call to a service on behalf of a client, and return its answer.

    Args:
        launcher: Knows where services are.
        name: The service.
        context: The client's call.
        at_most: Longest time, seconds; the client's own deadline may be shorter.
        call: Starts the call on a channel with a timeout (seconds) and returns its future.

    Raises:
        Unavailable: The service is away or went away; found within a few seconds.
        CellsparseError: The service refused the call.
    """
    address = find_address(launcher, name)
    try:
        with open_channel(address) as channel:
            future = call(channel, time_left(context, at_most))
            _pass_cancellation(context, future)
            return future.result()
    except (grpc.RpcError, grpc.FutureCancelledError) as error:
        raise _explain(error, name, address) from error


def stream_service(
    launcher: Launcher,
    name: str,
    context: grpc.ServicerContext,
    at_most: float,
    call: Callable[[grpc.Channel, float], Any],
) -> Iterator[Any]:
    """Make a call with a stream of answers on behalf of a client, and yield the answers (see `call_service`)."""

    def begin(channel: grpc.Channel) -> Any:
        stream = call(channel, time_left(context, at_most))
        _pass_cancellation(context, stream)
        return stream

    with open_stream(launcher, name, begin) as answers:
        yield from answers


@contextmanager
def open_stream(launcher: Launcher, name: str, begin: Callable[[grpc.Channel], Any]) -> Iterator[Any]:
    """Give the stream of answers of a call to a service; it is cancelled at the end of the `with` block.

    Args:
        launcher: Knows where services are.
        name: The service.
        begin: Starts the call on a channel and returns its stream.

    Raises:
        Unavailable: The service is away or went away; found within a few seconds.
        CellsparseError: The service refused the call.
    """
    address = find_address(launcher, name)
    try:
        with open_channel(address) as channel:
            stream = begin(channel)
            try:
                yield stream
            finally:
                stream.cancel()
    except grpc.RpcError as error:
        raise _explain(error, name, address) from error


def find_address(launcher: Launcher, name: str) -> str:
    """Return the address of a service that answers.

    Raises:
        Unavailable: It is not configured or installed, is being restarted, or does not answer.
    """
    service = launcher.service(name)
    if service is None:
        raise Unavailable(f"No {name} service is configured.")
    if not service.address:
        raise Unavailable(f"The {name} service is not running now: {service.message}")
    if not service.healthy:
        # One slow answer on a busy machine is no reason to refuse a call: check again.
        health = probe(name, service.address, _PROBE_SECONDS)
        if not health.healthy:
            raise Unavailable(f"The {name} service does not answer now: {health.message}")
    return service.address


def _pass_cancellation(context: grpc.ServicerContext, call: Any) -> None:
    # Registering fails if the client is gone already, and then nothing would ever cancel the call.
    if not context.add_callback(call.cancel):
        call.cancel()


def _explain(error: Exception, name: str, address: str) -> CellsparseError:
    if not isinstance(error, grpc.RpcError):
        return Unavailable(f"The call to the {name} service was cancelled.")
    found = from_rpc_error(error)
    if type(found) is Unavailable and not was_answered(error):
        return Unavailable(f"The {name} service at {address} went away or does not answer; try again in a few seconds.")
    return found
