"""Calls to the orchestrator that turn its errors into refusals."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from cellsparse_common.errors import CellsparseError, NotFound, from_rpc_error
from cellsparse_common.rpc.retries import repeated
from cellsparse_gateway.qupath.deadlines import PATIENCE_SECONDS, Deadline
from cellsparse_gateway.qupath.refusals import from_error
from cellsparse_proto.v1 import orchestrator_pb2_grpc, project_pb2_grpc

ASK_SECONDS = 60.0
"""Longest time of a call that only asks."""
CHUNK_BYTES = 2**20
PAGE_SIZE = 200


class Calls:
    """The orchestrator's services over one channel.

    Attributes:
        projects: Stub of ProjectService.
        runs: Stub of OrchestratorService.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.projects: Any = project_pb2_grpc.ProjectServiceStub(channel)
        self.runs: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)

    def ask(self, method: Callable[..., Any], request: Message, deadline: Deadline) -> Any:
        """Make a call that answers at once.

        Raises:
            Refusal: It failed.
        """
        return self.work(method, request, deadline, at_most=ASK_SECONDS)

    def work(
        self,
        method: Callable[..., Any],
        request: Message | Iterator[Message],
        deadline: Deadline,
        at_most: float = PATIENCE_SECONDS,
    ) -> Any:
        """Make a call that takes a while. One that a busy server refuses is repeated, as a user waits for the answer.

        Raises:
            Refusal: It failed.
        """
        try:
            if isinstance(request, Message):
                return repeated(lambda left: self.attempt(method, request, left), deadline.left(at_most))
            return self.attempt(method, request, deadline.left(at_most))
        except CellsparseError as error:
            raise from_error(error) from error

    def attempt(self, method: Callable[..., Any], request: Message | Iterator[Message], seconds: float) -> Any:
        """Make a call whose failure the caller handles.

        Raises:
            CellsparseError: It failed.
        """
        try:
            return method(request, timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def find(self, method: Callable[..., Any], request: Message, deadline: Deadline) -> Any | None:
        """Make a call that answers at once; None if there is no such thing.

        Raises:
            Refusal: It failed.
        """
        try:
            return self.attempt(method, request, deadline.left(ASK_SECONDS))
        except NotFound:
            return None
        except CellsparseError as error:
            raise from_error(error) from error

    def pages(
        self, method: Callable[..., Any], make: Callable[..., Message], entries: str, deadline: Deadline
    ) -> Iterator[Any]:
        """Yield the entries of all pages of a list.

        Args:
            method: The call.
            make: Makes the request, with `page=`.
            entries: The answer's field that holds the entries.
            deadline: Ends the calls.

        Raises:
            Refusal: A call failed.
        """
        token = ""
        while True:
            answer = self.ask(method, make(page={"page_size": PAGE_SIZE, "page_token": token}), deadline)
            yield from getattr(answer, entries)
            token = answer.next_page_token
            if not token:
                return


def upload(make: Callable[..., Message], header: Message, data: bytes) -> Iterator[Message]:
    """Yield the messages of a file's upload.

    Args:
        make: Makes a message, with `header=`, `chunk=` or `end=`.
        header: First part.
        data: The file.
    """
    yield make(header=header)
    for begin in range(0, len(data), CHUNK_BYTES):
        yield make(chunk=data[begin : begin + CHUNK_BYTES])
    yield make(end={"size": len(data)})
