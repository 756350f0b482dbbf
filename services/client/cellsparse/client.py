"""The client of an orchestrator."""

from types import TracebackType

from cellsparse.calls.administration import AdministrationCalls
from cellsparse.calls.datasets import DatasetCalls
from cellsparse.calls.models import ModelCalls
from cellsparse.calls.projects import ProjectCalls
from cellsparse.calls.runs import RunCalls
from cellsparse.calls.studies import StudyCalls
from cellsparse.connection import Connection
from cellsparse_proto.v1 import orchestrator_pb2


class Client(DatasetCalls, RunCalls, StudyCalls, ModelCalls, ProjectCalls, AdministrationCalls):
    """Client of one orchestrator. Every method raises `cellsparse.errors.CellsparseError` with one sentence.

    Args:
        address: host:port. Default: CELLSPARSE_ADDRESS, or the orchestrator that `cellsparse up` started.
        timeout: Deadline of an ordinary call, seconds.
        ca: PEM file of the authorities that sign the orchestrator's certificate, or "system" for public ones; not
            given: CELLSPARSE_TLS_CA, else a connection without TLS. If the orchestrator requires a client certificate,
            CELLSPARSE_TLS_CERT and CELLSPARSE_TLS_KEY name its files.
        token: What the orchestrator knows you by, if it asks for tokens; not given: CELLSPARSE_TOKEN_FILE,
            CELLSPARSE_TOKEN, or what `cellsparse login` keeps.

    Raises:
        Unavailable: No address is known.
        InvalidArgument: The file of a certificate or token cannot be read, or a token would be sent over a network
            without TLS.
    """

    def __init__(
        self, address: str | None = None, timeout: float = 30.0, *, ca: str | None = None, token: str | None = None
    ) -> None:
        self.connection = Connection(address, timeout, ca, token=token)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def status(self, timeout: float | None = None) -> orchestrator_pb2.GetStatusResponse:
        """Return all services and their health."""
        request = orchestrator_pb2.GetStatusRequest()
        answer: orchestrator_pb2.GetStatusResponse = self.connection.call("GetStatus", request, timeout=timeout)
        return answer
