"""Give an attempt new store credentials before those that it has end."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grpc

from cellsparse_common.errors import CellsparseError, from_rpc_error
from cellsparse_common.rpc.channel import open_channel
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_orchestrator.runs.watcher_loop import WatcherLoop
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc

if TYPE_CHECKING:  # it needs the S3 client, which is loaded where there is an S3 store
    from cellsparse_orchestrator.runs.store_credentials import CredentialIssuer

_LOG = logging.getLogger(__name__)
_CALL_SECONDS = 15.0
_SHARE = 1 / 3
"""Part of their lifetime after which credentials are renewed: two renewals may fail before they end."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


async def renew_credentials(
    attempt: RunAttempt,
    issuer: "CredentialIssuer",
    addresses: Callable[[], Sequence[str]],
    loop: WatcherLoop,
) -> None:
    """Renew the credentials of one attempt on all of its nodes until this is cancelled.

    The first renewal is at once: an orchestrator that has taken over does not know when those of the attempt end.

    Args:
        attempt: The attempt.
        issuer: Makes credentials.
        addresses: Returns the addresses of the attempt's trainers now; empty: not known.
        loop: Where this runs.
    """
    pause, said = _FIRST_PAUSE, ""
    while True:
        problem = await loop.call(_renew, attempt, issuer, addresses)
        if problem and problem != said:
            _LOG.warning("attempt %d of run %s: %s", attempt.number, attempt.run_id, problem)
        said = problem
        await asyncio.sleep(pause if problem else issuer.seconds * _SHARE)
        pause = min(2 * pause, _LONGEST_PAUSE, issuer.seconds * _SHARE) if problem else _FIRST_PAUSE


def _renew(attempt: RunAttempt, issuer: "CredentialIssuer", addresses: Callable[[], Sequence[str]]) -> str:
    """Give all nodes new credentials; return what went wrong, empty if nothing did."""
    known = [address for address in addresses() if address]
    if not known:
        return "its trainer cannot be reached to renew its credentials for the store"
    try:
        credentials = issuer.issue(attempt)
    except CellsparseError as error:
        return error.message
    request = trainer_pb2.RenewCredentialsRequest(
        run_id=attempt.run_id, attempt=attempt.number, credentials=credentials
    )
    problems = [_give(address, request) for address in known]
    return next(filter(None, problems), "")


def _give(address: str, request: trainer_pb2.RenewCredentialsRequest) -> str:
    try:
        with open_channel(address) as channel:
            trainer_pb2_grpc.TrainerServiceStub(channel).RenewCredentials(request, timeout=_CALL_SECONDS)
    except grpc.RpcError as error:
        return f"its credentials for the store are not renewed: {from_rpc_error(error).message}"
    return ""
