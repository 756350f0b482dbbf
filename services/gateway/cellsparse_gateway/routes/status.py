"""How the services are, and probes."""

import importlib.metadata

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from cellsparse_gateway.answers import json_answer
from cellsparse_gateway.calls import Orchestrator
from cellsparse_gateway.messages import to_json
from cellsparse_gateway.prompts.choose import Prompters
from cellsparse_gateway.schemas import Schemas, answers, object_of
from cellsparse_proto.v1 import orchestrator_pb2

STATUS_SECONDS = 10.0
PROBE_SECONDS = 3.0


def version() -> str:
    """Return the version of this package."""
    return importlib.metadata.version("cellsparse-gateway")


def router(orchestrator: Orchestrator, schemas: Schemas, prompters: Prompters) -> APIRouter:
    """Return the route of the services' state."""
    routes = APIRouter(tags=["status"])
    whole = schemas.without(orchestrator_pb2.GetStatusResponse)
    text = {"type": "string"}
    prompter = object_of(name=text, title=text, licence=text)
    more = {"prompters": {"type": "array", "items": prompter}, "version": text}
    schema = {**whole, "properties": {**whole["properties"], **more}}

    @routes.get("/status", responses=answers(schema))
    def get_status() -> Response:
        """Say which services there are and how they are."""
        status = orchestrator.runs.GetStatus(orchestrator_pb2.GetStatusRequest(), timeout=STATUS_SECONDS)
        listed = [{"name": each.name, "title": each.title, "licence": each.licence} for each in prompters.all()]
        return json_answer({**to_json(status), "prompters": listed, "version": version()})

    return routes


def probes(orchestrator: Orchestrator, registry: CollectorRegistry) -> APIRouter:
    """Return the routes for whoever watches the process."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/healthz")
    async def healthz() -> Response:
        """Answer as long as the process lives."""
        return Response("alive\n", media_type="text/plain")

    @routes.get("/readyz")
    def readyz() -> Response:
        """Answer 200 if the orchestrator answers, else 503."""
        orchestrator.answers(PROBE_SECONDS)
        return Response("ready\n", media_type="text/plain")

    @routes.get("/metrics")
    def metrics() -> Response:
        """Answer the metrics of this process for Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes
