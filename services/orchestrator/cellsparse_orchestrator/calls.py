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
from cellsparse_orchestrator.connections import Connections
from cellsparse_orchestrator.launchers.base import Launcher
from cellsparse_orchestrator.launchers.probe import probe
from cellsparse_orchestrator.launchers.wake_queue import Waiter

_CONNECTIONS = Connections()
_PROBE_SECONDS = 4.0
_LONGEST_WAIT_SECONDS = 86_400.0
"""Of a call without a deadline for a service that sleeps; the service's own limit is shorter."""


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
        Starting: It sleeps while nobody needs it, and has not started in time.
        CellsparseError: The service refused the call.
    """
    with _reach(launcher, name, waiter_of(context)) as (address, begun):
        try:
            with _CONNECTIONS.lend(address) as channel:
                future = call(channel, time_left(context, at_most))
                _pass_cancellation(context, future)
                begun(future)
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

    with open_stream(launcher, name, waiter_of(context), begin) as answers:
        yield from answers


@contextmanager
def open_stream(launcher: Launcher, name: str, waiter: Waiter, begin: Callable[[grpc.Channel], Any]) -> Iterator[Any]:
    """Give the stream of answers of a call to a service; it is cancelled at the end of the `with` block.

    Args:
        launcher: Knows where services are.
        name: The service.
        waiter: Waits for a service that sleeps.
        begin: Starts the call on a channel and returns its stream.

    Raises:
        Unavailable: The service is away or went away; found within a few seconds.
        Starting: It sleeps while nobody needs it, and has not started in time.
        CellsparseError: The service refused the call.
    """
    with _reach(launcher, name, waiter) as (address, begun):
        try:
            with open_channel(address, own_connection=True) as channel:
                stream = begin(channel)
                try:
                    begun(stream)
                    yield stream
                finally:
                    stream.cancel()
        except grpc.RpcError as error:
            raise _explain(error, name, address) from error


def waiter_of(context: grpc.ServicerContext) -> Waiter:
    """Return a client's call as one that waits for a service that sleeps, as long as the client does."""
    waiter = Waiter(time_left(context, _LONGEST_WAIT_SECONDS))
    if not context.add_callback(waiter.cancel):
        waiter.cancel()
    return waiter


@contextmanager
def _reach(launcher: Launcher, name: str, waiter: Waiter) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """Give the address of a service, and what to call with the call to it once that has begun (see `WakeQueue.turn`).

    A service that sleeps is waited for.

    Raises:
        Unavailable: It does not answer (see `find_address`), or has not started in time.
    """
    service = launcher.service(name)
    if service is None or service.wake_queue is None or not (service.healthy or service.asleep):
        yield find_address(launcher, name), lambda _: None
        return
    address = service.address
    with service.wake_queue.turn(waiter, lambda: probe(name, address, _PROBE_SECONDS).healthy) as begun:
        yield address, begun


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
