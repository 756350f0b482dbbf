"""Calls to the orchestrator, wherever it is now: a restarted one may listen on another port."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cellsparse_common.config.tls import ClientTls, files_changed
from cellsparse_common.errors import InvalidArgument, Unavailable
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.rpc.readiness import ANSWERING
from cellsparse_gateway.identity import call_metadata
from cellsparse_proto.v1 import (
    access_pb2_grpc,
    dataset_pb2_grpc,
    orchestrator_pb2_grpc,
    project_pb2_grpc,
    prompter_pb2_grpc,
    study_pb2_grpc,
)

ORCHESTRATOR_FILE = "orchestrator.json"
ASK_SECONDS = 60.0
"""Longest time of a call that only asks."""
WORK_SECONDS = 3600.0
"""Longest time of a call that computes or moves files; the orchestrator has shorter limits of its own."""
PAGE_SIZE = 200


class Orchestrator:
    """The orchestrator's services. Safe to use from many threads.

    Args:
        address: host:port; empty: as the file in `home` says, which is read again whenever it changes.
        home: Home folder of the local services.
        tls: Certificates; None: no TLS.

    Attributes:
        channel: A channel that always leads to the orchestrator's present address; stubs made on it stay valid.
        projects: Stub of ProjectService.
        prompters: Stub of PrompterService.
        runs: Stub of OrchestratorService.
        datasets: Stub of DatasetService.
        studies: Stub of StudyService.
        access: Stub of AccessService.
    """

    def __init__(self, address: str, home: Path, tls: ClientTls | None = None) -> None:
        self.channel = _FollowingChannel(address, home / ORCHESTRATOR_FILE, tls)
        # The generated stubs carry no types.
        self.projects: Any = project_pb2_grpc.ProjectServiceStub(self.channel)
        self.prompters: Any = prompter_pb2_grpc.PrompterServiceStub(self.channel)
        self.runs: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(self.channel)
        self.datasets: Any = dataset_pb2_grpc.DatasetServiceStub(self.channel)
        self.studies: Any = study_pb2_grpc.StudyServiceStub(self.channel)
        self.access: Any = access_pb2_grpc.AccessServiceStub(self.channel)
        self._health: Any = health_pb2_grpc.HealthStub(self.channel)

    def answers(self, seconds: float) -> None:
        """Return if the orchestrator answers: the one that leads, where another one stands by.

        Args:
            seconds: How long to wait.

        Raises:
            grpc.RpcError: It does not.
            Unavailable: No address is known, or it says that it does not answer now.
        """
        # Asks for no token, and is not written down: this is asked every few seconds.
        answer = self._health.Check(health_pb2.HealthCheckRequest(service=ANSWERING), timeout=seconds)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable("The orchestrator does not answer now.")

    def pages(self, method: Callable[..., Any], make: Callable[..., Message], entries: str) -> Iterator[Any]:
        """Yield the entries of all pages of a list.

        Args:
            method: The call.
            make: Makes the request, with `page=`.
            entries: The answer's field that holds the entries.

        Raises:
            grpc.RpcError: A call failed.
        """
        token = ""
        while True:
            answer = method(make(page={"page_size": PAGE_SIZE, "page_token": token}), timeout=ASK_SECONDS)
            yield from getattr(answer, entries)
            token = answer.next_page_token
            if not token:
                return

    def close(self) -> None:
        """Close the channel. Running calls fail."""
        self.channel.close()


class _FollowingChannel(grpc.Channel):  # type: ignore[misc]
    """A channel that looks up the orchestrator's address, and whether certificates were replaced, at every call.

    A former channel is dropped, not closed: a call that begins in the moment in which its channel is
    closed would wait forever. It goes with its last call.
    """

    def __init__(self, address: str, file: Path, tls: ClientTls | None) -> None:
        self._given = address
        self._file = file
        self._tls = tls
        self._lock = threading.Lock()
        self._address = ""
        self._changed: tuple[int, ...] = ()
        self._channel: grpc.Channel | None = None

    def now(self) -> grpc.Channel:
        """Return the channel to the present address, with the present certificates.

        Raises:
            Unavailable: No address is known.
            InvalidArgument: A certificate cannot be read, and none could before.
        """
        address, changed = self._given or self._read(), files_changed(self._tls)
        with self._lock:
            if self._channel is None or address != self._address:
                self._channel = open_channel(address, tls=self._tls)
                self._address, self._changed = address, changed
            elif changed != self._changed:
                with suppress(InvalidArgument):  # files are replaced one after the other: for a moment one is missing
                    self._channel = open_channel(address, tls=self._tls)
                    self._changed = changed
            return self._channel

    def _read(self) -> str:
        try:
            return str(json.loads(self._file.read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError):
            raise Unavailable(
                f"No orchestrator is running: {self._file} is not there; `cellsparse up` starts one."
            ) from None

    def unary_unary(self, method: str, *serializers: Any, _registered_method: bool = False, **named: Any) -> Any:
        return _Method(self, "unary_unary", method, serializers[:2], named)

    def unary_stream(self, method: str, *serializers: Any, _registered_method: bool = False, **named: Any) -> Any:
        return _Method(self, "unary_stream", method, serializers[:2], named)

    def stream_unary(self, method: str, *serializers: Any, _registered_method: bool = False, **named: Any) -> Any:
        return _Method(self, "stream_unary", method, serializers[:2], named)

    def stream_stream(self, method: str, *serializers: Any, _registered_method: bool = False, **named: Any) -> Any:
        return _Method(self, "stream_stream", method, serializers[:2], named)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        self.now().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self.now().unsubscribe(callback)

    def close(self) -> None:
        with self._lock:
            if self._channel is not None:
                self._channel.close()

    def __enter__(self) -> "_FollowingChannel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Method:
    """One method of a service, looked up on the present channel at every call."""

    def __init__(
        self, channel: _FollowingChannel, kind: str, method: str, serializers: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self._channel = channel
        self._kind = kind
        self._method = method
        self._serializers = serializers
        self._named = named

    def __call__(self, request: Any, **how: Any) -> Any:
        return self._handle()(request, metadata=call_metadata(), **how)

    def future(self, request: Any, **how: Any) -> Any:
        return self._handle().future(request, metadata=call_metadata(), **how)

    def with_call(self, request: Any, **how: Any) -> Any:
        return self._handle().with_call(request, metadata=call_metadata(), **how)

    def _handle(self) -> Any:
        return getattr(self._channel.now(), self._kind)(self._method, *self._serializers, **self._named)
