"""All addresses that QuPath's extensions call, as the application takes them."""

import logging
import threading
from collections.abc import Callable, Sequence

import grpc
from fastapi import APIRouter

from cellsparse_common.errors import CellsparseError
from cellsparse_gateway.calls import Orchestrator
from cellsparse_gateway.prompts.classical import Classical
from cellsparse_gateway.prompts.types import Prompter
from cellsparse_gateway.qupath import routes
from cellsparse_gateway.qupath.sam_routes import sam_router
from cellsparse_gateway.qupath.segmenting import Segmenting

_log = logging.getLogger(__name__)


def router(
    orchestrator: Orchestrator,
    more: Callable[[], Sequence[Prompter]],
    training_seconds: float,
    closing: threading.Event,
) -> APIRouter:
    """Return the addresses of the Cellsparse extension and of the SAM extension.

    Args:
        orchestrator: Keeps images, runs and models.
        more: Gives the prompters beside the one without weights.
        training_seconds: How long a training should take at most.
        closing: Set when the server is about to end.
    """

    def prompters() -> dict[str, Prompter]:
        try:
            found = more()
        except (grpc.RpcError, CellsparseError) as error:
            # The one without weights needs no orchestrator.
            _log.warning("prompters that users added are left out: %s", error)
            found = []
        return {prompter.name: prompter for prompter in (Classical(), *found)}

    doors = APIRouter()
    doors.include_router(routes.router(Segmenting(orchestrator.channel, training_seconds, closing)))
    doors.include_router(sam_router(prompters))
    return doors
