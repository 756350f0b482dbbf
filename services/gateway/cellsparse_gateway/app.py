"""Assemble the web server from its parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import APIRouter, FastAPI

from cellsparse_common.rpc.metrics import new_registry
from cellsparse_gateway import problems
from cellsparse_gateway.body_budget import BodyBudget
from cellsparse_gateway.calls import Orchestrator
from cellsparse_gateway.events import EventStreams
from cellsparse_gateway.middleware import BodyLimit, CompressJson, EveryAnswer, OwnSite, RequestMetrics, SignedIn
from cellsparse_gateway.pages import mount_pages
from cellsparse_gateway.prompts.images import ImagePrompts
from cellsparse_gateway.prompts.weights import all_prompters, stored_prompters
from cellsparse_gateway.qupath import doors as qupath
from cellsparse_gateway.request_traces import RequestTraces
from cellsparse_gateway.routes import (
    annotations,
    archives,
    datasets,
    images,
    layers,
    models,
    projects,
    prompters,
    prompts,
    runs,
    session,
    status,
    studies,
    suggestions,
    training,
)
from cellsparse_gateway.schemas import Schemas, describe
from cellsparse_gateway.settings import GatewaySettings

PREFIX = "/api/v1"
THREADS = 96
"""Requests that wait for the orchestrator at the same time; it answers 128 calls."""


def create_app(settings: GatewaySettings, orchestrator: Orchestrator, streams: EventStreams) -> FastAPI:
    """Return the application.

    Args:
        settings: What to build.
        orchestrator: Answers all calls.
        streams: Keeps the open event streams.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        orchestrator.close()

    app = FastAPI(
        title="Cellsparse",
        summary="Segmentation models from a few labelled cells.",
        version=status.version(),
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
        lifespan=lifespan,
    )
    schemas, registry = Schemas(), new_registry()
    stored = stored_prompters(settings, orchestrator)
    known = all_prompters(settings, stored)
    problems.add_handlers(app)
    api = APIRouter(prefix=PREFIX)
    for routes in (
        status.router(orchestrator, schemas, known),
        session.router(orchestrator, schemas, settings.registration()),
        archives.router(orchestrator, schemas, settings.sample),
        projects.router(orchestrator, schemas),
        images.router(orchestrator, schemas),
        annotations.router(orchestrator, schemas),
        layers.router(orchestrator, schemas),
        prompts.router(ImagePrompts(orchestrator, known)),
        prompters.router(orchestrator, schemas, stored),
        suggestions.router(orchestrator, schemas),
        training.router(orchestrator, schemas),
        runs.router(orchestrator, schemas, streams),
        datasets.router(orchestrator, schemas),
        models.router(orchestrator, schemas),
        studies.router(orchestrator, schemas, streams),
    ):
        api.include_router(routes)
    app.include_router(api)
    app.include_router(status.probes(orchestrator, registry))
    app.include_router(qupath.router(orchestrator, known.weighted, settings.qupath_seconds, streams.closing))
    mount_pages(app, settings.docs)
    describe(app, schemas, PREFIX)
    # The last added sees a request first.
    app.add_middleware(BodyLimit, max_mib=settings.max_body_mib, budget=BodyBudget(settings.max_bodies_mib * 2**20))
    app.add_middleware(SignedIn, orchestrator=orchestrator, required=settings.auth != "off")
    app.add_middleware(OwnSite, hosts=settings.host_names())
    app.add_middleware(CompressJson)
    app.add_middleware(EveryAnswer)
    app.add_middleware(RequestMetrics, registry=registry)
    app.add_middleware(RequestTraces)
    return app
