"""Export of models as files for other tools."""

import hashlib
from pathlib import Path
from typing import BinaryIO

from cellsparse import enum_names
from cellsparse.connection import Connection
from cellsparse.errors import Internal
from cellsparse.targets import check_target, make_folder
from cellsparse_common.files import replacing
from cellsparse_proto.v1 import trainer_pb2

EXPORT_SECONDS = 1800.0


def export(
    connection: Connection, model_id: str, format_: str, path: str | Path, *, force: bool = False
) -> trainer_pb2.ExportHeader:
    """Write a model as a file, completely or not at all (see `cellsparse.Client.export`)."""
    number = enum_names.number(trainer_pb2.ExportFormat.DESCRIPTOR, format_, "format")
    target = Path(path)
    check_target(target, force)
    make_folder(target.parent)
    with replacing(target) as file:
        header = _fetch(connection, trainer_pb2.ExportRequest(model_id=model_id, format=number), file)
        check_target(target, force)
    return header


def _fetch(connection: Connection, request: trainer_pb2.ExportRequest, file: BinaryIO) -> trainer_pb2.ExportHeader:
    header: trainer_pb2.ExportHeader | None = None
    digest = hashlib.sha256()
    for answer in connection.stream("Export", request, timeout=EXPORT_SECONDS):
        if header is None:
            header = answer.header
        else:
            digest.update(answer.chunk)
            file.write(answer.chunk)
    if header is None or file.tell() != header.size or digest.hexdigest() != header.sha256:
        raise Internal("The file did not arrive as it was sent; export it again.")
    return header
