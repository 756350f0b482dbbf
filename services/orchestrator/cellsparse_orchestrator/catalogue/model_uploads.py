"""Receive a model upload: a stream of messages becomes one file in a spool folder."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.files import disk_errors
from cellsparse_proto.v1 import orchestrator_pb2


@dataclass(frozen=True, kw_only=True)
class ModelUpload:
    """A complete upload."""

    header: orchestrator_pb2.ImportModelHeader
    """What the user states about the file."""
    file: Path
    """The file."""
    sha256: str
    """Its SHA-256, hex."""


def receive_model(requests: Iterable[orchestrator_pb2.ImportModelRequest], file: Path, max_bytes: int) -> ModelUpload:
    """Receive a whole stream.

    Args:
        requests: The messages.
        file: Where to write the uploaded file; must not exist.
        max_bytes: Largest size of the file.

    Raises:
        InvalidArgument: The messages come in a wrong order, or the file is incomplete.
        ResourceExhausted: The file is too large.
        StorageError: The spool cannot be written.
    """
    header: orchestrator_pb2.ImportModelHeader | None = None
    digest, size, ended = hashlib.sha256(), 0, False
    with disk_errors(f"write {file}"), file.open("xb") as target:
        for request in requests:
            part = request.WhichOneof("part")
            if header is None and part != "header":
                raise InvalidArgument("The first message of an import must be its header.", "header")
            if ended:
                raise InvalidArgument(f"The import goes on with a {part} after its end; end comes last.", "end")
            if part == "header":
                if header is not None:
                    raise InvalidArgument("The import has a second header; send one, as the first message.", "header")
                header = request.header
            elif part == "chunk":
                size += len(request.chunk)
                if size > max_bytes:
                    raise ResourceExhausted(
                        f"The model file is larger than {max_bytes / 2**20:g} MiB, the most allowed.", "chunk"
                    )
                digest.update(request.chunk)
                target.write(request.chunk)
            else:
                if request.end.size != size:
                    raise InvalidArgument(f"The end names {request.end.size} bytes, but {size} came.", "end.size")
                ended = True
    if header is None or not ended:
        raise InvalidArgument("The import stopped without its end message; nothing of it is kept.", "end")
    return ModelUpload(header=header, file=file, sha256=digest.hexdigest())
