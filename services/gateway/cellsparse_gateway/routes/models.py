"""Models, and what they do: predictions and evaluations."""

from collections.abc import Iterator
from typing import Annotated, Any

import grpc
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from cellsparse_common.imaging.label_formats import FORMATS, file_name
from cellsparse_gateway.answers import Axes, Id, PageSize, PageToken, attachment, file_answer, message_answer, nothing
from cellsparse_gateway.calls import ASK_SECONDS, WORK_SECONDS, Orchestrator
from cellsparse_gateway.messages import enum_number, from_json
from cellsparse_gateway.problems import from_call
from cellsparse_gateway.routes.annotations import Format
from cellsparse_gateway.routes.datasets import Name
from cellsparse_gateway.routes.runs import Backend
from cellsparse_gateway.schemas import FILE, Schemas, answers, list_of, takes, takes_file
from cellsparse_gateway.uploads import json_body, read_body, stream_up
from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2

MAX_PREDICT_MIB = 60
Channel = Annotated[int | None, Query(ge=0, le=15, description="Image channel to use, from 0.")]
Channels = Annotated[
    list[str] | None,
    Query(max_length=16, description="Image channels in the network's order: numbers from 0 or names."),
]
ChannelNumbers = Annotated[
    list[Annotated[int, Field(ge=0, le=15)]] | None,
    Query(max_length=16, description="Image channels in the network's order, from 0."),
]
Percentile = Annotated[float | None, Query(ge=0, le=100, allow_inf_nan=False)]
Diameter = Annotated[float | None, Query(ge=1, le=1000, allow_inf_nan=False, description="Cellpose: in pixels.")]
ImageName = Annotated[
    str, Query(max_length=255, description="Name of the image's file, for formats that hold it: coco, seg, ome-tiff.")
]
ModelId = Annotated[str, Query(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
ExportFormat = Annotated[str, Query(pattern="^(native|saved_model|torchscript|onnx|bioimageio)$")]


def router(orchestrator: Orchestrator, schemas: Schemas) -> APIRouter:
    """Return the routes of models."""
    routes = APIRouter(tags=["models"])
    model_schema = schemas.ref(orchestrator_pb2.Model)

    @routes.get("/models", responses=answers(list_of("models", model_schema)))
    def list_models(page_size: PageSize = 0, page_token: PageToken = "", backend: Backend = "") -> Response:
        """List models, newest first."""
        page = {"page_size": page_size, "page_token": page_token}
        request = orchestrator_pb2.ListModelsRequest(page=page, backend=backend)
        return message_answer(orchestrator.runs.ListModels(request, timeout=ASK_SECONDS))

    @routes.post("/models", status_code=201, responses=answers(model_schema, 201), openapi_extra=takes_file())
    async def import_model(
        request: Request,
        backend: Annotated[str, Query(pattern="^[a-z0-9_]{1,32}$")],
        name: Name,
        channel: Channel = None,
        lower_percentile: Percentile = None,
        upper_percentile: Percentile = None,
        diameter: Diameter = None,
        channels: ChannelNumbers = None,
    ) -> Response:
        """Make a model of a stock tool's file, or of one that was exported as native. The body is the file."""
        settings = trainer_pb2.ImportSettings(
            backend=backend,
            channel=channel,
            lower_percentile=lower_percentile,
            upper_percentile=upper_percentile,
            channels=channels,
        )
        if diameter is not None:
            settings.cellpose.diameter = diameter
        header = orchestrator_pb2.ImportModelHeader(name=name, settings=settings)
        answer = await stream_up(request, orchestrator.runs.ImportModel, orchestrator_pb2.ImportModelRequest, header)
        return message_answer(answer.model, 201)

    @routes.get("/models/{model}", responses=answers(model_schema))
    def get_model(model: Id) -> Response:
        """Answer one model."""
        request = orchestrator_pb2.GetModelRequest(model_id=model)
        return message_answer(orchestrator.runs.GetModel(request, timeout=ASK_SECONDS).model)

    @routes.delete("/models/{model}", status_code=204, responses=answers(None, 204))
    def delete_model(model: Id) -> Response:
        """Delete a model that nothing needs."""
        orchestrator.runs.DeleteModel(orchestrator_pb2.DeleteModelRequest(model_id=model), timeout=ASK_SECONDS)
        return nothing()

    @routes.post("/models/{model}/undelete", responses=answers(model_schema))
    def undelete_model(model: Id) -> Response:
        """Undelete a model, as it was."""
        request = orchestrator_pb2.UndeleteModelRequest(model_id=model)
        return message_answer(orchestrator.runs.UndeleteModel(request, timeout=ASK_SECONDS).model)

    @routes.get("/models/{model}/export", responses=answers(FILE, media="application/octet-stream"))
    def export_model(model: Id, format: ExportFormat = "native") -> Response:  # noqa: A002
        """Answer a model as a file for other tools; each backend has some of the formats."""
        number = enum_number(trainer_pb2.ExportFormat.DESCRIPTOR, format, "format")
        request = trainer_pb2.ExportRequest(model_id=model, format=number)
        call = orchestrator.runs.Export(request, timeout=WORK_SECONDS)
        header = next(call).header
        headers = {**attachment(header.file_name), "Content-Length": str(header.size), "X-Sha256": header.sha256}
        return file_answer(_chunks(call), "application/octet-stream", headers)

    @routes.post(
        "/predictions",
        tags=["predictions"],
        responses=answers(FILE, media="application/octet-stream"),
        openapi_extra=takes_file(),
    )
    async def predict(
        request: Request,
        model_id: ModelId,
        format: Format = "tiff",  # noqa: A002
        channel: Channel = None,
        channels: Channels = None,
        min_pixels: Annotated[int, Query(ge=0, le=67_108_864)] = 0,
        axes: Axes = "",
        image_name: ImageName = "",
    ) -> Response:
        """Segment an image, which is the body, with a model. The header X-Cells says how many cells were found."""
        ask = trainer_pb2.PredictRequest(
            model_id=model_id,
            image=await read_body(request, MAX_PREDICT_MIB),
            channel=channel,
            channels=channels,
            min_pixels=min_pixels,
            format=FORMATS[format].number,
            image_name=image_name,
            axes=axes,
        )
        answer = await run_in_threadpool(_predict, orchestrator, ask)
        name = file_name(format, image_name) if image_name else f"labels{FORMATS[format].ending}"
        headers = {**attachment(name), "X-Cells": str(answer.cells), "X-Seconds": f"{answer.seconds:.3f}"}
        return Response(answer.output or answer.label, media_type=FORMATS[format].media, headers=headers)

    @routes.post(
        "/evaluations",
        tags=["evaluations"],
        responses=answers(schemas.ref(trainer_pb2.EvaluateResponse)),
        openapi_extra=takes(schemas.without(trainer_pb2.EvaluateRequest)),
    )
    def evaluate(body: Annotated[Any, Depends(json_body)]) -> Response:
        """Score a model on a split of a dataset."""
        request = from_json(trainer_pb2.EvaluateRequest, body)
        last = trainer_pb2.EvaluateResponse()
        for last in orchestrator.runs.Evaluate(request, timeout=WORK_SECONDS):  # noqa: B007 - the report is in it
            pass
        return message_answer(last)

    return routes


def _predict(orchestrator: Orchestrator, request: trainer_pb2.PredictRequest) -> trainer_pb2.PredictResponse:
    try:
        answer: trainer_pb2.PredictResponse = orchestrator.runs.Predict(request, timeout=WORK_SECONDS)
    except grpc.RpcError as error:
        raise from_call(error, upload=True) from None
    return answer


def _chunks(call: Any) -> Iterator[bytes]:
    try:
        for message in call:
            yield message.chunk
    finally:
        call.cancel()
