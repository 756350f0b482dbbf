"""Annotations: edits, undo, cells, and label files."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from cellsparse_common.imaging.label_formats import FORMATS, file_name
from cellsparse_gateway.answers import (
    Id,
    OptionalId,
    attachment,
    file_answer,
    message_answer,
    received,
)
from cellsparse_gateway.calls import ASK_SECONDS, WORK_SECONDS, Orchestrator
from cellsparse_gateway.messages import enum_number, from_json
from cellsparse_gateway.schemas import FILE, Schemas, answers, takes, takes_file
from cellsparse_gateway.uploads import json_body, stream_up
from cellsparse_proto.v1 import dataset_pb2, project_pb2

Format = Annotated[str, Query(pattern=f"^({'|'.join(FORMATS).replace('.', '[.]')})$")]
Author = Annotated[str, Query(pattern="^[A-Za-z0-9_-]{0,64}$", description="Undo is by author.")]


def router(orchestrator: Orchestrator, schemas: Schemas) -> APIRouter:
    """Return the routes of annotations."""
    routes = APIRouter(tags=["annotations"])

    @routes.post(
        "/images/{image}/edits",
        responses=answers(schemas.ref(project_pb2.EditAnnotationResponse)),
        openapi_extra=takes(schemas.without(project_pb2.EditAnnotationRequest, "image_id")),
    )
    def edit(image: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Replace label numbers. 409, with nothing changed, if someone else changed these tiles meanwhile."""
        request = from_json(project_pb2.EditAnnotationRequest, body, image_id=image)
        return message_answer(orchestrator.projects.EditAnnotation(request, timeout=ASK_SECONDS))

    @routes.post(
        "/images/{image}/undo",
        responses=answers(schemas.ref(project_pb2.UndoEditResponse)),
        openapi_extra=takes(schemas.without(project_pb2.UndoEditRequest, "image_id")),
    )
    def undo(image: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Take back an author's newest edit."""
        request = from_json(project_pb2.UndoEditRequest, body, image_id=image)
        return message_answer(orchestrator.projects.UndoEdit(request, timeout=ASK_SECONDS))

    @routes.post(
        "/images/{image}/redo",
        responses=answers(schemas.ref(project_pb2.RedoEditResponse)),
        openapi_extra=takes(schemas.without(project_pb2.RedoEditRequest, "image_id")),
    )
    def redo(image: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Repeat the edit that the author took back last."""
        request = from_json(project_pb2.RedoEditRequest, body, image_id=image)
        return message_answer(orchestrator.projects.RedoEdit(request, timeout=ASK_SECONDS))

    @routes.get("/images/{image}/cells", responses=answers(schemas.ref(project_pb2.ListCellsResponse)))
    def list_cells(image: Id, layer: OptionalId = "") -> Response:
        """List the cells of the annotation or of a layer."""
        request = project_pb2.ListCellsRequest(image_id=image, layer_id=layer)
        return message_answer(orchestrator.projects.ListCells(request, timeout=ASK_SECONDS))

    @routes.get("/images/{image}/labels", responses=answers(FILE, media="application/octet-stream"))
    def export_labels(image: Id, format: Format = "tiff", layer: OptionalId = "") -> Response:  # noqa: A002
        """Answer the annotation or a layer as a file."""
        found = orchestrator.projects.GetImage(project_pb2.GetImageRequest(image_id=image), timeout=ASK_SECONDS).image
        request = project_pb2.ExportLabelsRequest(image_id=image, layer_id=layer, format=FORMATS[format].number)
        call = orchestrator.projects.ExportLabels(request, timeout=WORK_SECONDS)
        return file_answer(received(call), FORMATS[format].media, attachment(file_name(format, found.name)))

    @routes.post(
        "/images/{image}/labels",
        responses=answers(schemas.ref(project_pb2.ProjectImage)),
        openapi_extra=takes_file(),
    )
    async def import_labels(
        request: Request,
        image: Id,
        kind: Annotated[str, Query(pattern="^(instances|binary|offset_by_one)$")] = "instances",
        author: Author = "",
    ) -> Response:
        """Add the labels of a file where the annotation has none.

        The body is a TIFF, PNG, GeoJSON, ROI zip, COCO JSON of one image, or Cellpose's _seg.npy.
        """
        number = enum_number(dataset_pb2.LabelKind.DESCRIPTOR, kind, "kind")
        header = project_pb2.ImportLabelsHeader(image_id=image, label_kind=number, author=author)
        answer = await stream_up(request, orchestrator.projects.ImportLabels, project_pb2.ImportLabelsRequest, header)
        return message_answer(answer.image)

    return routes
