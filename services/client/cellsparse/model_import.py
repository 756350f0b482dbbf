"""Import of model files of other tools."""

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from cellsparse.connection import Connection
from cellsparse.errors import InvalidArgument
from cellsparse.sources import read_parts
from cellsparse.targets import file_errors
from cellsparse.training_settings import assign
from cellsparse.uploads import EmptyFile, Sender, can_resume, hashed
from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2

IMPORT_SECONDS = 3600.0


def import_model(
    connection: Connection, path: str | Path, backend: str, name: str, values: dict[str, Any]
) -> orchestrator_pb2.Model:
    """Upload a model file, or a folder as a zip (see `cellsparse.Client.import_model`)."""
    source = Path(path)
    settings = trainer_pb2.ImportSettings(backend=backend)
    for field, value in values.items():
        if value is not None:
            message = settings if field in settings.DESCRIPTOR.fields_by_name else _own_settings(settings, field)
            assign(message, message.DESCRIPTOR.fields_by_name[field], value)
    header = orchestrator_pb2.ImportModelHeader(name=name or display_name(source.stem), settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        with file_errors(f"{source} cannot be read"):
            if source.is_dir():
                source = _zipped(source, Path(folder) / "model.zip")
        if can_resume(connection):
            return _import_blob(connection, header, source)
        answer: orchestrator_pb2.ImportModelResponse = connection.upload(
            "ImportModel", _messages(header, source), timeout=IMPORT_SECONDS
        )
    return answer.model


def _import_blob(
    connection: Connection, header: orchestrator_pb2.ImportModelHeader, path: Path
) -> orchestrator_pb2.Model:
    """Send a file, and ask for the model."""
    try:
        blob = hashed(path, f"model file {path.name}")
    except EmptyFile:
        raise InvalidArgument(f"{path} is empty; give a model file.") from None
    Sender(connection).send([blob])
    request = orchestrator_pb2.ImportModelFromBlobRequest(header=header, sha256=blob.sha256)
    answer: orchestrator_pb2.ImportModelFromBlobResponse = connection.call(
        "ImportModelFromBlob", request, timeout=IMPORT_SECONDS
    )
    return answer.model


def _own_settings(settings: trainer_pb2.ImportSettings, field: str) -> Message:
    """Return the backend's own part of import settings.

    Raises:
        InvalidArgument: The backend has no such setting.
    """
    own = settings.DESCRIPTOR.fields_by_name.get(settings.backend)
    if own is None or own.message_type is None or field not in own.message_type.fields_by_name:
        raise InvalidArgument(f"{field} is no setting of an imported {settings.backend} model; leave it out.", field)
    message: Message = getattr(settings, own.name)
    return message


def _messages(header: orchestrator_pb2.ImportModelHeader, path: Path) -> Iterator[orchestrator_pb2.ImportModelRequest]:
    request = orchestrator_pb2.ImportModelRequest
    yield request(header=header)
    size = 0
    for chunk in read_parts(path):
        size += len(chunk)
        yield request(chunk=chunk)
    if not size:
        raise InvalidArgument(f"{path} is empty; give a model file.")
    yield request(end=orchestrator_pb2.ImportModelEnd(size=size))


def _zipped(folder: Path, target: Path) -> Path:
    """Return a zip of the visible files of a folder, without those in folders named `logs`."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder)
            hidden = any(part.startswith(".") for part in inside.parts)
            if path.is_file() and not hidden and "logs" not in inside.parts:  # TensorBoard's, beside StarDist's weights
                archive.write(path, inside.as_posix())
    return target


def display_name(text: str, instead: str = "imported") -> str:
    """Return a name that datasets and models may have, made from that of a file or folder."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._ -") else "-" for letter in text)
    return kept.lstrip("._ -")[:100] or instead
