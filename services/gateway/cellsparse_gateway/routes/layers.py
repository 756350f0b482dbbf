"""Layers: what models predict for an image of a project."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from cellsparse_gateway.answers import Id, message_answer, nothing
from cellsparse_gateway.calls import ASK_SECONDS, WORK_SECONDS, Orchestrator
from cellsparse_gateway.messages import from_json
from cellsparse_gateway.schemas import Schemas, answers, takes
from cellsparse_gateway.uploads import json_body
from cellsparse_proto.v1 import project_pb2


def router(orchestrator: Orchestrator, schemas: Schemas) -> APIRouter:
    """Return the routes of layers."""
    routes = APIRouter(tags=["layers"])

    @routes.get("/images/{image}/layers", responses=answers(schemas.ref(project_pb2.ListLayersResponse)))
    def list_layers(image: Id) -> Response:
        """List the layers of an image, newest first."""
        request = project_pb2.ListLayersRequest(image_id=image)
        return message_answer(orchestrator.projects.ListLayers(request, timeout=ASK_SECONDS))

    @routes.post(
        "/images/{image}/layers",
        status_code=201,
        responses=answers(schemas.ref(project_pb2.Layer), 201),
        openapi_extra=takes(schemas.without(project_pb2.PredictLayerRequest, "image_id")),
    )
    def predict_layer(image: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Segment an image with a model, or with the newest checkpoint of a run that is training."""
        request = from_json(project_pb2.PredictLayerRequest, body, image_id=image)
        return message_answer(orchestrator.projects.PredictLayer(request, timeout=WORK_SECONDS).layer, 201)

    @routes.delete("/layers/{layer}", status_code=204, responses=answers(None, 204))
    def delete_layer(layer: Id) -> Response:
        """Delete a layer."""
        orchestrator.projects.DeleteLayer(project_pb2.DeleteLayerRequest(layer_id=layer), timeout=ASK_SECONDS)
        return nothing()

    return routes
