"""Training and datasets of a project."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.answers import Id, message_answer
from cellsparse_gateway.calls import WORK_SECONDS, Orchestrator
from cellsparse_gateway.messages import enum_number, from_json
from cellsparse_gateway.schemas import Schemas, answers, takes
from cellsparse_gateway.uploads import json_body
from cellsparse_proto.v1 import dataset_pb2, orchestrator_pb2, project_pb2, trainer_pb2

_SETTINGS: Any = trainer_pb2.TrainingSettings.DESCRIPTOR
DATASET_FIELDS = ("val_image_ids", "test_image_ids")
OWN_FIELDS = ("backend", "preset", "initial_model", "settings", "name", "request_id")


def router(orchestrator: Orchestrator, schemas: Schemas) -> APIRouter:
    """Return the routes that train on a project."""
    routes = APIRouter(tags=["training"])
    ids = {"type": "array", "items": {"type": "string"}, "maxItems": 10000}
    train_schema = {
        "type": "object",
        "properties": {
            "backend": {"type": "string", "enum": backends()},
            "preset": {"type": "string", "enum": ["fast", "paper"]},
            "initial_model": {"type": "string"},
            "settings": {
                "type": "object",
                "description": "Fields of TrainingSettings, and of the backend's own settings.",
                "properties": schemas.without(trainer_pb2.TrainingSettings, *backends())["properties"],
            },
            "val_image_ids": ids,
            "test_image_ids": ids,
            "name": {"type": "string"},
            "request_id": {"type": "string"},
        },
        "required": ["backend"],
        "additionalProperties": False,
    }

    @routes.post(
        "/projects/{project}/train",
        status_code=201,
        responses=answers(schemas.ref(orchestrator_pb2.Run), 201),
        openapi_extra=takes(train_schema),
    )
    def train(project: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Make a dataset of the project's annotated images and queue a run on it."""
        request = training_request(project, body)
        return message_answer(orchestrator.projects.TrainProject(request, timeout=WORK_SECONDS).run, 201)

    @routes.post(
        "/projects/{project}/dataset",
        status_code=201,
        responses=answers(schemas.ref(dataset_pb2.Dataset), 201),
        openapi_extra=takes(schemas.without(project_pb2.CreateProjectDatasetRequest, "project_id")),
    )
    def create_dataset(project: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Make a dataset of the project's annotated images."""
        request = from_json(project_pb2.CreateProjectDatasetRequest, body, project_id=project)
        return message_answer(orchestrator.projects.CreateProjectDataset(request, timeout=WORK_SECONDS).dataset, 201)

    return routes


def backends() -> list[str]:
    """Return the names of all backends."""
    return [field.name for field in _SETTINGS.oneofs_by_name["backend"].fields]


def training_request(project: str, body: Any) -> project_pb2.TrainProjectRequest:
    """Return the request for a training of a project.

    Args:
        project: The project's id.
        body: The document that a client sent.

    Raises:
        InvalidArgument: A field is unknown, or does not fit.
    """
    if not isinstance(body, dict):
        raise InvalidArgument("The body must be a JSON object.")
    unknown = sorted(set(body) - {*DATASET_FIELDS, *OWN_FIELDS})
    if unknown:
        allowed = ", ".join((*OWN_FIELDS, *DATASET_FIELDS))
        raise InvalidArgument(f"There is no field {unknown[0][:80]!r}; allowed: {allowed}.", unknown[0][:80])
    document = {
        "dataset": {"project_id": project, **{name: body[name] for name in DATASET_FIELDS if name in body}},
        "settings": _settings(body),
        **{name: body[name] for name in ("name", "request_id") if name in body},
    }
    return from_json(project_pb2.TrainProjectRequest, document)


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    backend = body.get("backend")
    if backend not in backends():
        raise InvalidArgument(f"backend is {backend!r}; allowed: {', '.join(backends())}.", "backend")
    given = body.get("settings") or {}
    if not isinstance(given, dict):
        raise InvalidArgument("settings must be a JSON object.", "settings")
    own_fields = _SETTINGS.fields_by_name[backend].message_type.fields_by_name
    nested = given.get(backend, {})
    if not isinstance(nested, dict):
        raise InvalidArgument(f"settings.{backend} must be a JSON object.", f"settings.{backend}")
    shared = {name: value for name, value in given.items() if name in _SETTINGS.fields_by_name and name != backend}
    own = {name: value for name, value in given.items() if name not in _SETTINGS.fields_by_name}
    unknown = sorted(name for name in own if name not in own_fields)
    if unknown:
        raise InvalidArgument(f"{backend} has no setting {unknown[0][:80]!r}.", f"settings.{unknown[0][:80]}")
    settings = {**shared, backend: {**nested, **own}}
    if body.get("preset"):
        preset = body["preset"] if isinstance(body["preset"], str) else repr(body["preset"])
        settings["preset"] = enum_number(trainer_pb2.Preset.DESCRIPTOR, preset, "preset")
    if body.get("initial_model"):
        settings["initial_model"] = body["initial_model"]
    return settings
