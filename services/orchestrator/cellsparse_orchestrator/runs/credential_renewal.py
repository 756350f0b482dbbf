"""Give an attempt new store credentials before those that it has end."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grpc

from cellsparse_common.errors import CellsparseError, from_rpc_error
from cellsparse_common.rpc.channel import open_channel
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc

if TYPE_CHECKING:  # it needs the S3 client, which is loaded where there is an S3 store
    from cellsparse_orchestrator.runs.store_credentials import CredentialIssuer

_LOG = logging.getLogger(__name__)
_CALL_SECONDS = 15.0
_SHARE = 1 / 3
"""Part of their lifetime after which credentials are renewed: two renewals may fail before they end."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class CredentialRenewal(threading.Thread):
    """Renews the credentials of one attempt on all of its nodes until it is closed.

    The first renewal is at once: an orchestrator that has taken over does not know when those of the attempt end.

    Args:
        attempt: The attempt.
        issuer: Makes credentials.
        addresses: Returns the addresses of the attempt's trainers now; empty: not known.
    """

    def __init__(self, attempt: RunAttempt, issuer: "CredentialIssuer", addresses: Callable[[], Sequence[str]]) -> None:
        super().__init__(name=f"renew-{attempt.run_id}", daemon=True)
        self._attempt = attempt
        self._issuer = issuer
        self._addresses = addresses
        self._end = threading.Event()

    def run(self) -> None:
        """Renew until `close`."""
        pause, said = _FIRST_PAUSE, ""
        while not self._end.is_set():
            problem = self._renew()
            if problem and problem != said:
                _LOG.warning("attempt %d of run %s: %s", self._attempt.number, self._attempt.run_id, problem)
            said = problem
            self._end.wait(pause if problem else self._issuer.seconds * _SHARE)
            pause = min(2 * pause, _LONGEST_PAUSE, self._issuer.seconds * _SHARE) if problem else _FIRST_PAUSE

    def close(self) -> None:
        """End soon."""
        self._end.set()

    def _renew(self) -> str:
        """Give all nodes new credentials; return what went wrong, empty if nothing did."""
        addresses = [address for address in self._addresses() if address]
        if not addresses:
            return "its trainer cannot be reached to renew its credentials for the store"
        try:
            credentials = self._issuer.issue(self._attempt)
        except CellsparseError as error:
            return error.message
        request = trainer_pb2.RenewCredentialsRequest(
            run_id=self._attempt.run_id, attempt=self._attempt.number, credentials=credentials
        )
        problems = [self._give(address, request) for address in addresses]
        return next(filter(None, problems), "")

    def _give(self, address: str, request: trainer_pb2.RenewCredentialsRequest) -> str:
        try:
            with open_channel(address) as channel:
                trainer_pb2_grpc.TrainerServiceStub(channel).RenewCredentials(request, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            return f"its credentials for the store are not renewed: {from_rpc_error(error).message}"
        return ""
