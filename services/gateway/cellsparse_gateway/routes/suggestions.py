"""Suggestions: which cells of a project, or of a dataset, to mark next."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.answers import Id, message_answer
from cellsparse_gateway.calls import WORK_SECONDS, Orchestrator
from cellsparse_gateway.messages import enum_number, enum_words, from_json
from cellsparse_gateway.schemas import Schemas, answers, takes
from cellsparse_gateway.uploads import json_body
from cellsparse_proto.v1 import project_pb2, suggestion_pb2

_METHOD: Any = suggestion_pb2.SuggestionMethod.DESCRIPTOR


def router(orchestrator: Orchestrator, schemas: Schemas) -> APIRouter:
    """Return the routes of suggestions."""
    routes = APIRouter(tags=["suggestions"])
    body_schema = schemas.without(project_pb2.SuggestRequest, "project_id", "dataset_id")
    body_schema["properties"]["method"] = {
        "type": "string",
        "enum": [*enum_words(_METHOD), *(value.name for value in _METHOD.values)],
        "description": "How to choose; not given: auto.",
    }

    @routes.post(
        "/projects/{project}/suggestions",
        responses=answers(schemas.ref(project_pb2.SuggestResponse)),
        openapi_extra=takes(body_schema),
    )
    def suggest(project: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Suggest which cells and spots of background to mark next, each with a reason."""
        return answer(body, project_id=project)

    @routes.post(
        "/datasets/{dataset}/suggestions",
        responses=answers(schemas.ref(project_pb2.SuggestResponse)),
        openapi_extra=takes(body_schema),
    )
    def suggest_of_dataset(dataset: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Suggest what to mark next in the training items of a dataset; `image_id` is the name of an item."""
        return answer(body, dataset_id=dataset)

    def answer(body: Any, **images: str) -> Response:
        content = body
        if isinstance(body, dict):
            unknown = {"project_id", "dataset_id"} & body.keys()
            if unknown:
                raise InvalidArgument(f"The body has {min(unknown)}; the address says which images are meant.")
            if isinstance(body.get("method"), str):
                content = {**body, "method": _method(body["method"])}
        request = from_json(project_pb2.SuggestRequest, content, **images)
        return message_answer(orchestrator.projects.Suggest(request, timeout=WORK_SECONDS))

    return routes


def _method(text: str) -> int:
    """Return a method by its short or its full name; raises InvalidArgument."""
    if text in ("", _METHOD.values_by_number[0].name):
        return 0
    return int(enum_number(_METHOD, text, "method"))
