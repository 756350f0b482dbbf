"""All addresses that QuPath's extensions call, as the application takes them."""

import threading
from collections.abc import Sequence

from fastapi import APIRouter

from cellsparse_gateway.calls import Orchestrator
from cellsparse_gateway.prompts.classical import Classical
from cellsparse_gateway.prompts.types import Prompter
from cellsparse_gateway.qupath import routes
from cellsparse_gateway.qupath.sam_routes import sam_router
from cellsparse_gateway.qupath.segmenting import Segmenting


def router(
    orchestrator: Orchestrator, more: Sequence[Prompter], training_seconds: float, closing: threading.Event
) -> APIRouter:
    """Return the addresses of the Cellsparse extension and of the SAM extension.

    Args:
        orchestrator: Keeps images, runs and models.
        more: Prompters beside the one without weights.
        training_seconds: How long a training should take at most.
        closing: Set when the server is about to end.
    """
    prompters: list[Prompter] = [Classical(), *more]
    doors = APIRouter()
    doors.include_router(routes.router(Segmenting(orchestrator.channel, training_seconds, closing)))
    doors.include_router(sam_router({prompter.name: prompter for prompter in prompters}))
    return doors
