"""An orchestrator that asks for tokens, two projects with a thing of each kind, and calls made of descriptors."""

import itertools
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from support.limits import PATIENCE

from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.rpc.rules import rules_of
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import (
    AliasRow,
    DatasetRow,
    LayerRow,
    ModelRow,
    ProjectImageRow,
    ProjectRow,
    ProjectRunRow,
    RunRow,
    StudyRow,
)
from cellsparse_proto.v1 import dataset_pb2, rules_pb2, study_pb2, trainer_pb2

ADMIN = "an-administrators-token-of-the-settings"
NOWHERE = "127.0.0.1:1"
ALIAS = "the word"
_WANTED = {("PredictRequest", "image"), ("SparsifySettings", "k"), ("StudyGrid", "backends")}
"""Fields that a call asks for, beside those whose rules say so."""
_NUMBERS = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Things:
    """One thing of each kind that belongs to a project, by the name of the request's field that names it."""

    project_id: str
    ids: dict[str, str] = field(default_factory=dict)


def add_things(database: Database, project_id: str) -> Things:
    """Add rows for one thing of each kind; the store has nothing of them. The project is made if it is not there."""
    number = next(_NUMBERS)
    now = datetime.now(UTC)
    ids = {kind: f"{kind}-{number}" for kind in ("ds", "run", "study", "im", "ly")}
    summary = json_format.MessageToJson(dataset_pb2.Dataset(id=ids["ds"], name=ids["ds"], test_items=1), indent=None)
    settings = json_format.MessageToJson(trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings()), indent=None)
    own: dict[str, Any] = {"project_id": project_id, "created_at": now}
    with database.write() as session:
        if session.query(ProjectRow).filter_by(id=project_id).one_or_none() is None:
            session.add(ProjectRow(id=project_id, name=f"name of {project_id}", created_at=now))
            session.add(AliasRow(owner=project_id, backend="unet", name=ALIAS, project_id=project_id, model_id=""))
            session.flush()
        session.add(DatasetRow(id=ids["ds"], name=ids["ds"], summary=summary, **own))
        session.add(
            RunRow(
                id=ids["run"],
                request_sha256="",
                name=ids["run"],
                backend="unet",
                dataset_id=ids["ds"],
                settings=settings,
                max_attempts=1,
                state="SUCCEEDED",
                **own,
            )
        )
        session.add(ModelRow(id=ids["run"], name=ids["run"], backend="unet", dataset_id=ids["ds"], **own))
        session.add(
            StudyRow(
                id=ids["study"],
                request_sha256="",
                name=ids["study"],
                dataset_id=ids["ds"],
                grid=json_format.MessageToJson(study_pb2.StudyGrid(), indent=None),
                split="TEST",
                max_attempts=1,
                state="SUCCEEDED",
                **own,
            )
        )
        session.add(
            ProjectImageRow(
                id=ids["im"],
                name=ids["im"],
                sha256="0" * 64,
                height=64,
                width=64,
                planes=1,
                channels=1,
                dtype="uint8",
                contrast=json.dumps([[0, 255]]),
                spacing="[]",
                **own,
            )
        )
        session.add(ProjectRunRow(project_id=project_id, run_id=ids["run"]))
        session.flush()
        session.add(
            LayerRow(
                id=ids["ly"],
                image_id=ids["im"],
                model_id=ids["run"],
                run_id="",
                step=1,
                created_at=now,
                cells=0,
                revision=1,
                scores=b"",
            )
        )
    return Things(
        project_id=project_id,
        ids={
            "project_id": project_id,
            "dataset_id": ids["ds"],
            "run_id": ids["run"],
            "model_id": ids["run"],
            "study_id": ids["study"],
            "image_id": ids["im"],
            "layer_id": ids["ly"],
        },
    )


def request_of(method: MethodDescriptor, ids: dict[str, str]) -> list[Message]:
    """Return the shortest messages that a method takes, with these ids where it asks for some."""
    kind = GetMessageClass(method.input_type)
    header = method.input_type.fields_by_name.get("header")
    if header is None or "part" not in method.input_type.oneofs_by_name:
        return [_filled(kind(), ids)]
    first, file = kind(), b"no image"
    first.header.SetInParent()
    _filled(first.header, ids)
    if method.input_type.name == "PredictFileRequest":
        first.header.ClearField("image")
    end = {"size": len(file)} if "size" in method.input_type.fields_by_name["end"].message_type.fields_by_name else {}
    return [first, kind(chunk=file), kind(end=end)] if "chunk" in method.input_type.fields_by_name else [first]


def names_of(method: MethodDescriptor, known: dict[str, str]) -> list[str]:
    """Return the names of the ids that a method's shortest request holds."""
    found: list[str] = []

    def look(message: Message) -> None:
        for each, value in message.ListFields():
            if each.name in known and each.type == FieldDescriptor.TYPE_STRING:
                found.append(each.name)
            elif each.type == FieldDescriptor.TYPE_MESSAGE and not each.is_repeated:
                look(value)

    for message in request_of(method, known):
        look(message)
    return sorted(set(found))


def unknown_fields(method: MethodDescriptor, known: dict[str, str], but_not: set[str]) -> list[str]:
    """Return fields of a request that are called an id, and of which a test does not know what they name."""
    found: set[str] = set()

    def look(descriptor: Any, depth: int) -> None:
        for each in descriptor.fields:
            if each.name.endswith(("_id", "_ids")) and each.name not in known and each.name not in but_not:
                found.add(f"{descriptor.name}.{each.name}")
            if each.message_type is not None and depth:
                look(each.message_type, depth - 1)

    look(method.input_type, 3)
    return sorted(found)


def call(address: str, method: MethodDescriptor, messages: list[Message], token: str = "") -> tuple[str, str, list]:
    """Make a call; return its status, its sentence, and what was answered."""
    with open_channel(address, token=token) as channel:
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        stub = getattr(channel, kind)(
            f"/{method.containing_service.full_name}/{method.name}",
            lambda message: message.SerializeToString(),
            GetMessageClass(method.output_type).FromString,
        )
        try:
            answer = stub(iter(messages) if method.client_streaming else messages[0], timeout=PATIENCE)
            return "OK", "", list(answer) if method.server_streaming else [answer]
        except grpc.RpcError as error:
            return error.code().name, error.details(), []


def _filled(message: Message, ids: dict[str, str]) -> Message:
    for each in message.DESCRIPTOR.fields:
        if each.name in ids and each.type == FieldDescriptor.TYPE_STRING and not each.is_repeated:
            setattr(message, each.name, ids[each.name])
        elif _is_wanted(each) or (message.DESCRIPTOR.name, each.name) in _WANTED:
            _fill(message, each, ids)
    for oneof in message.DESCRIPTOR.oneofs:
        if oneof.name == "backend" and not message.WhichOneof("backend"):
            message.unet.SetInParent()
    return message


def _is_wanted(each: FieldDescriptor) -> bool:
    rules = rules_of(each)
    return bool(rules.required or rules.min_items or (rules.min > 0 and not each.has_presence))


def _fill(message: Message, each: FieldDescriptor, ids: dict[str, str]) -> None:
    if each.type == FieldDescriptor.TYPE_MESSAGE:
        part = getattr(message, each.name)
        if each.is_repeated:
            _filled(part.add(), ids)
        else:
            part.SetInParent()
            _filled(part, ids)
    elif each.type == FieldDescriptor.TYPE_STRING:
        texts = {"backend": "unet", "backends": "unet", "name": ALIAS, "licence": "MIT"}
        text = texts.get(each.name, "a" * 64 if each.name.endswith("sha256") else "word")
        getattr(message, each.name).append(text) if each.is_repeated else setattr(message, each.name, text)
    elif each.type == FieldDescriptor.TYPE_ENUM:
        setattr(message, each.name, rules_pb2.ROLE_ADMIN if each.enum_type.name == "Role" else 1)
    elif each.type == FieldDescriptor.TYPE_BYTES:
        setattr(message, each.name, b"x")
    else:
        setattr(message, each.name, 1)
