"""Receive an image or a label file: a stream of messages becomes the bytes of one file."""

import tempfile
from collections.abc import Iterable
from typing import IO, TypeVar

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.files import disk_errors
from cellsparse_proto.v1 import project_pb2

Message = TypeVar("Message", project_pb2.AddImageRequest, project_pb2.ImportLabelsRequest)


def receive(requests: Iterable[Message], max_bytes: int, what: str) -> tuple[Message, bytes]:
    """Receive a whole stream; until it is complete, its file is on disk.

    Args:
        requests: First the header, then chunks, last the end.
        max_bytes: Largest file allowed.
        what: What the file is, for messages.

    Returns:
        The message with the header, and the file.

    Raises:
        InvalidArgument: The messages come in a wrong order, or the file is empty or of another size than announced.
        ResourceExhausted: The file is too large.
    """
    with disk_errors("write a temporary file"), tempfile.TemporaryFile(prefix="cellsparse-") as file:
        header = _receive(requests, file, max_bytes, what)
        file.seek(0)
        return header, file.read()


def _receive(requests: Iterable[Message], file: IO[bytes], max_bytes: int, what: str) -> Message:
    """Write what comes into a file, and return the message with the header."""
    header: Message | None = None
    size, ended = 0, False
    for request in requests:
        part = request.WhichOneof("part")
        if header is None and part != "header":
            raise InvalidArgument("The first message of an upload must be its header.", "header")
        if ended:
            raise InvalidArgument(f"The upload goes on with a {part} after its end; end comes last.", "end")
        if part == "header":
            if header is not None:
                raise InvalidArgument("The upload has a second header; send one, as the first message.", "header")
            header = request
        elif part == "chunk":
            size += len(request.chunk)
            if size > max_bytes:
                raise ResourceExhausted(
                    f"The {what} is larger than {max_bytes / 2**20:g} MiB, the most allowed.", "chunk"
                )
            file.write(request.chunk)
        else:
            if request.end.size != size:
                raise InvalidArgument(f"The end names {request.end.size} bytes, but {size} came.", "end.size")
            ended = True
    if header is not None and _is_stored(header):
        if size or ended:
            raise InvalidArgument("The image is in the store already; send the header alone.", "header.stored")
        return header
    if header is None or not ended:
        raise InvalidArgument("The upload stopped without its end message; nothing of it is kept.", "end")
    return header


def _is_stored(message: Message) -> bool:
    return isinstance(message, project_pb2.AddImageRequest) and bool(message.header.stored)
