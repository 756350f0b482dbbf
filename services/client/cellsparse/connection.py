"""One channel to the orchestrator: deadlines, errors as exceptions, and a new address after a restart."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from cellsparse.errors import Cancelled, CellsparseError, Unavailable
from cellsparse.home import chosen_address, find_address, home_dir
from cellsparse.security import describe_refusal, find_tls
from cellsparse.tokens import find_token, refuse_to_show
from cellsparse.upload_urls import StoreConnections
from cellsparse.words import reworded
from cellsparse_common.config.tls import ClientTls
from cellsparse_common.errors import from_rpc_error, was_answered
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.rpc.retries import repeated
from cellsparse_proto.v1 import (
    access_pb2_grpc,
    admin_pb2_grpc,
    dataset_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    project_pb2_grpc,
    prompter_pb2_grpc,
    study_pb2_grpc,
    upload_pb2_grpc,
)

_FIRST_RELEASE_PIXELS = 2**26
"""Most pixels of an orchestrator of 0.1.0, which does not tell."""


class Connection:
    """A connection to the orchestrator's services.

    Args:
        address: host:port; None finds it (see `cellsparse.home`) at every call, as an orchestrator that is started
            again may listen on another port.
        timeout: Deadline of an ordinary call, seconds.
        ca: File of the authorities that sign the orchestrator's certificate, or "system" for public ones; None: from
            the environment, else a connection without TLS.
        home: Home folder whose orchestrator is meant, whatever the environment says; None: not given.
        token: Shown with every call; None: as `cellsparse.tokens` finds it.

    Raises:
        Unavailable: No address is known.
        InvalidArgument: The address is none, the file of a certificate or token cannot be read, or a token would be
            sent over a network without TLS.
    """

    def __init__(
        self,
        address: str | None,
        timeout: float,
        ca: str | None = None,
        *,
        home: Path | None = None,
        token: str | None = None,
    ) -> None:
        self.timeout = timeout
        self.resumes_uploads: bool | None = None
        """Whether the orchestrator takes files by their hash; None: not asked yet."""
        self.stores = StoreConnections()
        """Connections to object stores, for files that go straight there."""
        self._token = token
        self._tls = find_tls(ca)
        self._ca = ca
        self._closed = False
        # A stream that starts at the very moment in which its channel is closed would wait forever.
        self._beginning = threading.Lock()
        # Looked up once: what the environment becomes later is about other clients.
        self._fixed = None if home else chosen_address(address)
        self._home = home or (None if self._fixed else home_dir())
        self._open(self._find())

    def _find(self) -> str:
        return find_address(self._home) if self._home else str(self._fixed)

    def _open(self, address: str) -> None:
        self.address = address
        self._max_pixels: int | None = None
        token = find_token(address, self._home) if self._token is None else self._token
        if token and self._tls is None:
            refuse_to_show(address)
        self._channel = open_channel(address, tls=self._tls, token=token)
        # The generated stubs carry no types; `_method` is the only place that looks inside them.
        self._stubs: list[Any] = [
            stub(self._channel)
            for stub in (
                dataset_pb2_grpc.DatasetServiceStub,
                orchestrator_pb2_grpc.OrchestratorServiceStub,
                project_pb2_grpc.ProjectServiceStub,
                prompter_pb2_grpc.PrompterServiceStub,
                study_pb2_grpc.StudyServiceStub,
                admin_pb2_grpc.AdminServiceStub,
                access_pb2_grpc.AccessServiceStub,
                upload_pb2_grpc.UploadServiceStub,
            )
        ]

    @property
    def tls(self) -> ClientTls | None:
        """Certificates of the connection; None: no TLS."""
        return self._tls

    @property
    def closed(self) -> bool:
        """Whether it was closed for good."""
        return self._closed

    def max_pixels(self) -> int:
        """Return the most pixels of an image, or voxels of a stack, that the orchestrator decodes. Fetched once."""
        if self._max_pixels is None:
            status: orchestrator_pb2.GetStatusResponse = self.call("GetStatus", orchestrator_pb2.GetStatusRequest())
            self._max_pixels = status.max_pixels or _FIRST_RELEASE_PIXELS
        return self._max_pixels

    def refresh(self) -> None:
        """Look up the address again: a restarted orchestrator may listen on another port."""
        if self._closed or self._fixed:
            return  # closed by another thread: calls shall fail, not reconnect
        try:
            address = self._find()
        except Unavailable:
            return  # it is starting, and has not written its address yet
        with self._beginning:
            if address != self.address and not self._closed:
                self._channel.close()
                self._open(address)

    def another(self) -> "Connection":
        """Return a new connection to the same orchestrator for another thread, as `refresh` is not thread-safe."""
        return Connection(self._fixed, self.timeout, self._ca, home=self._home, token=self._token)

    def close(self) -> None:
        """Close the channel. Running calls fail."""
        with self._beginning:
            self._closed = True
            self._channel.close()
        self.stores.close()

    def call(self, method: str, request: Message, *, timeout: float | None = None) -> Any:
        """Make a unary call. One that a busy server refuses is repeated when the server says, within the deadline.

        Raises:
            CellsparseError: The call failed.
        """

        def once(seconds: float) -> Any:
            self.refresh()
            with _Errors(self):
                return self._method(method)(request, timeout=seconds)

        return repeated(once, timeout or self.timeout)

    def upload(self, method: str, requests: Iterator[Message], *, timeout: float) -> Any:
        """Make a call with a stream of requests. Exceptions of the iterator are raised here.

        Raises:
            CellsparseError: The call failed.
        """
        source = _Source(requests)
        self.refresh()
        with _Errors(self, source):
            return self._method(method)(source, timeout=timeout)

    def stream(self, method: str, request: Message, *, timeout: float) -> Iterator[Any]:
        """Make a call with a stream of answers. Closing the iterator cancels the call.

        Raises:
            CellsparseError: The call failed.
        """
        self.refresh()
        with _Errors(self):
            with self._beginning:
                call = self._method(method)(request, timeout=timeout)
            try:
                yield from call
            finally:
                call.cancel()

    def exchange(self, method: str, requests: Iterator[Message], *, timeout: float) -> Iterator[Any]:
        """Make a call with streams of requests and of answers. Exceptions of the requests' iterator are raised here.

        Raises:
            CellsparseError: The call failed.
        """
        source = _Source(requests)
        self.refresh()
        with _Errors(self, source):
            with self._beginning:
                call = self._method(method)(source, timeout=timeout)
            try:
                yield from call
            finally:
                call.cancel()

    def pages(self, method: str, make: Callable[..., Message], entries: str) -> Iterator[Any]:
        """Yield the entries of all pages of a list call.

        Args:
            method: Name of the call.
            make: Makes the request, with `page=`.
            entries: The answer's field that holds the entries.
        """
        token = ""
        while True:
            answer = self.call(method, make(page={"page_size": 200, "page_token": token}))
            yield from getattr(answer, entries)
            token = answer.next_page_token
            if not token:
                return

    def _method(self, name: str) -> Any:
        return next(getattr(stub, name) for stub in self._stubs if hasattr(stub, name))


class _Source:
    """Aborts an upload whose iterator raises, and keeps the exception for the caller's thread.

    Raising here would make gRPC log a traceback and cancel the call. To the server a cancelled stream can look like one
    that ended normally, so that it would keep half a dataset. Sending an empty message makes the server refuse it.
    """

    def __init__(self, requests: Iterator[Message]) -> None:
        self._requests = requests
        self._last: Message | None = None
        self.failure: Exception | None = None

    def __iter__(self) -> "_Source":
        return self

    def __next__(self) -> Message:
        if self.failure is not None:
            raise StopIteration
        try:
            self._last = next(self._requests)
        except StopIteration:
            raise
        except Exception as error:
            self.failure = error
            if self._last is None:
                raise StopIteration from error  # a stream without its first message is refused too
            return type(self._last)()
        return self._last


class _Errors:
    """Turns exceptions of a stub into those of the SDK."""

    def __init__(self, connection: Connection, source: _Source | None = None) -> None:
        self._connection = connection
        self._source = source

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._source is not None and self._source.failure is not None:
            raise self._source.failure from None
        if isinstance(error, ValueError) and "closed channel" in str(error):  # by another thread
            raise Cancelled(f"The connection to {self._connection.address} was closed.") from None
        if isinstance(error, grpc.RpcError):
            raise reworded(explain(error, self._connection.address, tls=self._connection.tls)) from None


def explain(error: grpc.RpcError, address: str, *, tls: ClientTls | None = None) -> CellsparseError:
    """Return the SDK's exception for a failed call. If no server answered, it names the address.

    Args:
        error: What a stub raised.
        address: host:port of the orchestrator.
        tls: Certificates of the call.
    """
    found = from_rpc_error(error)
    if type(found) is Unavailable and isinstance(error, grpc.Call) and not was_answered(error):
        refusal = describe_refusal(error.details() or "", address, tls)
        if refusal:
            return Unavailable(refusal)
        return Unavailable(f"No orchestrator answers at {address}; `cellsparse up` starts one.")
    return found
