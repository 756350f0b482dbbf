"""Datasets."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from cellsparse_gateway.answers import Id, PageSize, PageToken, attachment, json_answer, message_answer, nothing
from cellsparse_gateway.calls import ASK_SECONDS, WORK_SECONDS, Orchestrator
from cellsparse_gateway.dataset_zip import upload_zip
from cellsparse_gateway.messages import enum_number, from_json, to_json
from cellsparse_gateway.schemas import FILE, Schemas, answers, list_of, object_of, takes, takes_file
from cellsparse_gateway.uploads import json_body, spooled
from cellsparse_proto.v1 import dataset_pb2

ItemName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._ -]{0,199}$")]
Name = Annotated[str, Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,99}$")]
TIFF = answers(FILE, media="image/tiff")


def router(orchestrator: Orchestrator, schemas: Schemas) -> APIRouter:
    """Return the routes of datasets."""
    routes = APIRouter(tags=["datasets"])
    dataset_schema = schemas.ref(dataset_pb2.Dataset)

    @routes.get("/datasets", responses=answers(list_of("datasets", dataset_schema)))
    def list_datasets(page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        """List datasets, newest first."""
        page = {"page_size": page_size, "page_token": page_token}
        request = dataset_pb2.ListDatasetsRequest(page=page)
        return message_answer(orchestrator.datasets.ListDatasets(request, timeout=ASK_SECONDS))

    @routes.post(
        "/datasets",
        status_code=201,
        responses=answers(made_schema(schemas), 201),
        openapi_extra=takes_file("application/zip"),
    )
    async def create_dataset(
        request: Request,
        name: Name,
        kind: Annotated[str, Query(pattern="^(instances|binary|offset_by_one)$")] = "instances",
    ) -> Response:
        """Make a dataset. The body is a zip of images/ and masks/, or of train/, val/ and test/ with these in them.

        Files are paired by name, as `cellsparse dataset import` does; `left_out` says which were not used, and why.
        `report` counts what was read of each item. All faults of the files are told at once; then nothing is kept.
        """
        header = dataset_pb2.DatasetHeader(
            name=name, label_kind=enum_number(dataset_pb2.LabelKind.DESCRIPTOR, kind, "kind")
        )
        async with spooled(request) as file:
            made, left_out = await run_in_threadpool(upload_zip, orchestrator, header, file)
        document = {**to_json(made.dataset), "left_out": left_out_list(left_out), "report": to_json(made.report)}
        return json_answer(document, 201)

    @routes.get("/datasets/{dataset}", responses=answers(dataset_schema))
    def get_dataset(dataset: Id) -> Response:
        """Answer one dataset."""
        request = dataset_pb2.GetDatasetRequest(dataset_id=dataset)
        return message_answer(orchestrator.datasets.GetDataset(request, timeout=ASK_SECONDS).dataset)

    @routes.delete("/datasets/{dataset}", status_code=204, responses=answers(None, 204))
    def delete_dataset(dataset: Id) -> Response:
        """Delete a dataset that no unfinished run needs."""
        orchestrator.datasets.DeleteDataset(dataset_pb2.DeleteDatasetRequest(dataset_id=dataset), timeout=ASK_SECONDS)
        return nothing()

    @routes.post("/datasets/{dataset}/undelete", responses=answers(dataset_schema))
    def undelete_dataset(dataset: Id) -> Response:
        """Undelete a dataset, as it was."""
        request = dataset_pb2.UndeleteDatasetRequest(dataset_id=dataset)
        return message_answer(orchestrator.datasets.UndeleteDataset(request, timeout=ASK_SECONDS).dataset)

    @routes.get("/datasets/{dataset}/items", responses=answers(list_of("items", schemas.ref(dataset_pb2.DatasetItem))))
    def list_items(dataset: Id, page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        """List a dataset's items in their order."""
        page = {"page_size": page_size, "page_token": page_token}
        request = dataset_pb2.ListDatasetItemsRequest(dataset_id=dataset, page=page)
        return message_answer(orchestrator.datasets.ListDatasetItems(request, timeout=ASK_SECONDS))

    def item_file(dataset: str, item: str, part: str) -> Response:
        request = dataset_pb2.GetDatasetItemRequest(dataset_id=dataset, item=item)
        answer = orchestrator.datasets.GetDatasetItem(request, timeout=ASK_SECONDS)
        return Response(getattr(answer, part), media_type="image/tiff", headers=attachment(f"{item}-{part}.tif"))

    @routes.get("/datasets/{dataset}/items/{item}/image", responses=TIFF)
    def get_item_image(dataset: Id, item: ItemName) -> Response:
        """Answer an item's image as a TIFF file."""
        return item_file(dataset, item, "image")

    @routes.get("/datasets/{dataset}/items/{item}/label", responses=TIFF)
    def get_item_label(dataset: Id, item: ItemName) -> Response:
        """Answer an item's label image as an int32 TIFF file: -1 not labelled, 0 background, n > 0 cell n."""
        return item_file(dataset, item, "label")

    @routes.post(
        "/datasets/{dataset}/sparsify",
        status_code=201,
        responses=answers(schemas.ref(dataset_pb2.CreateSparseDatasetResponse), 201),
        openapi_extra=takes(sparsify_schema(schemas)),
    )
    def sparsify(dataset: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Make a dataset in which the chosen splits keep a few cells."""
        request = sparsify_request(dataset, body)
        last = dataset_pb2.CreateSparseDatasetResponse()
        for last in orchestrator.datasets.CreateSparseDataset(request, timeout=WORK_SECONDS):  # noqa: B007 - the result
            pass
        return message_answer(last, 201)

    return routes


def made_schema(schemas: Schemas) -> dict[str, Any]:
    """Return the schema of a dataset that was just made of a zip: its fields, the report, and the files left out."""
    file = object_of(file={"type": "string"}, reason={"type": "string"})
    fields = schemas.without(dataset_pb2.Dataset)
    more = {"left_out": {"type": "array", "items": file}, "report": schemas.ref(dataset_pb2.UploadReport)}
    return {**fields, "properties": {**fields["properties"], **more}}


def left_out_list(left_out: dict[str, str]) -> list[dict[str, str]]:
    """Return the files of a zip that were not used, with the reasons."""
    return [{"file": path, "reason": reason} for path, reason in left_out.items()]


def sparsify_schema(schemas: Schemas) -> dict[str, Any]:
    """Return the schema of a request to sparsify: the settings beside name and splits."""
    outer = schemas.without(dataset_pb2.CreateSparseDatasetRequest, "dataset_id", "settings")
    inner: Any = dataset_pb2.CreateSparseDatasetRequest.DESCRIPTOR.fields_by_name["settings"].message_type
    settings = schemas.without(type("Settings", (), {"DESCRIPTOR": inner}))  # type: ignore[arg-type]
    return {**settings, "properties": {**settings["properties"], **outer["properties"]}}


def sparsify_request(dataset: str, body: Any) -> dataset_pb2.CreateSparseDatasetRequest:
    """Return the request for a sparse copy of a dataset from a document with the settings beside name and splits.

    Raises:
        InvalidArgument: It does not fit.
    """
    if not isinstance(body, dict):
        return from_json(dataset_pb2.CreateSparseDatasetRequest, body)
    outer = {name: body[name] for name in ("name", "splits") if name in body}
    settings = {name: value for name, value in body.items() if name not in outer}
    document = {"dataset_id": dataset, "settings": settings, **outer}
    return from_json(dataset_pb2.CreateSparseDatasetRequest, document)
