"""Answers and parameters that the routes share."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import grpc
from fastapi import Path, Query, Response
from fastapi.responses import StreamingResponse
from google.protobuf.message import Message
from starlette.datastructures import Headers

from cellsparse_gateway.messages import to_json

ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
Id = Annotated[str, Path(pattern=ID_PATTERN)]
"""An id as a part of an address."""
OptionalId = Annotated[str, Query(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")]
"""An id as a parameter; empty: none."""
PageSize = Annotated[int, Query(ge=0, le=1000, description="Most entries to answer; 0 means 50.")]
PageToken = Annotated[str, Query(pattern=r"^[A-Za-z0-9_=-]{0,200}$", description="From the answer before.")]
Whole = Annotated[int, Query(ge=0, le=2**32 - 1)]
"""A number from 0 that 32 bits hold."""
Axes = Annotated[
    str, Query(pattern="^(YX|YXC|CYX|ZYX|ZYXC|ZCYX|CZYX)?$", description="Axes of the file; empty: as it says.")
]


def json_answer(content: Any, status: int = 200) -> Response:
    """Return an answer in JSON."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")


def message_answer(message: Message, status: int = 200) -> Response:
    """Return a message as JSON."""
    return json_answer(to_json(message), status)


def nothing() -> Response:
    """Return an answer without a body."""
    return Response(status_code=204)


def attachment(name: str) -> dict[str, str]:
    """Return the headers of a file to save under a name."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._- ") else "_" for letter in name)
    return {"Content-Disposition": f'attachment; filename="{plain}"'}


def file_answer(parts: Iterator[bytes], media: str, headers: dict[str, str]) -> Response:
    """Return a file that arrives in parts. A failure before the first part is raised here.

    Raises:
        grpc.RpcError: The call failed at once.
    """
    first = next(parts, b"")

    def all_parts() -> Iterator[bytes]:
        yield first
        yield from parts

    return StreamingResponse(all_parts(), media_type=media, headers=headers)


def received(call: Iterable[Any]) -> Iterator[bytes]:
    """Yield the chunks of a call that answers a file; closing ends the call."""
    try:
        for message in call:
            if message.chunk:
                yield message.chunk
    finally:
        if isinstance(call, grpc.Call):
            call.cancel()


def accepts(headers: Headers, coding: str) -> bool:
    """Whether a client takes a content coding."""
    for part in headers.get("accept-encoding", "").split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip().lower() in (coding, "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
