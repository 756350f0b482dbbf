"""Bodies of requests: JSON documents, small files, and files that stream through to the orchestrator."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import IO, Any

import grpc
from fastapi import Request
from google.protobuf.message import Message
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from cellsparse_common.errors import CellsparseError, InvalidArgument
from cellsparse_common.files import disk_errors
from cellsparse_gateway.calls import WORK_SECONDS
from cellsparse_gateway.problems import Problem, from_call

CHUNK_BYTES = 2**20
MAX_JSON_MIB = 64
BODY_SECONDS = 600.0
"""Longest pause of a client between two parts of a body."""
HELD = "cellsparse.held_body"
"""Key of a request's scope: what its body takes of the budget for all (see `body_budget`)."""


def too_large(mib: int, hint: str = "") -> Problem:
    """Return the problem of a body that is too large."""
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {mib} MiB, the most allowed{hint}.")


def too_slow() -> Problem:
    """Return the problem of a body that pauses for too long."""
    return Problem(HTTPStatus.REQUEST_TIMEOUT, f"No part of the body came for {BODY_SECONDS:.0f} seconds.")


async def json_body(request: Request) -> Any:
    """Return a request's JSON document; an empty body is an empty object. A dependency of routes.

    Raises:
        Problem: It is too large.
        InvalidArgument: It is not JSON.
    """
    data = await read_body(request, MAX_JSON_MIB)
    if not data:
        return {}
    return await run_in_threadpool(_parse, data) if len(data) > CHUNK_BYTES else _parse(data)


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"The body is not JSON: {str(error)[:200]}.") from None


async def read_body(request: Request, max_mib: int | None = None) -> bytes:
    """Return a request's whole body.

    Args:
        request: The request.
        max_mib: Largest body here, MiB; None: as large as any.

    Raises:
        Problem: It is larger than allowed here.
        Busy: The bodies of all requests together take too much.
    """
    data = bytearray()
    async for chunk in request.stream():
        _grow(request, len(chunk))
        data += chunk
        if max_mib is not None and len(data) > max_mib * 2**20:
            raise too_large(max_mib, " here")
    return bytes(data)


def _grow(request: Request, size: int) -> None:
    """Note that so many bytes more of a body are kept; raises Busy."""
    held = request.scope.get(HELD)
    if held is not None:
        held.grow(size)


@asynccontextmanager
async def spooled(request: Request) -> AsyncIterator[IO[bytes]]:
    """Yield a file with a request's whole body, on disk if it is large; it is gone afterwards.

    Raises:
        Problem: The body is too large.
        Busy: The bodies of all requests together take too much.
        StorageError: The disk is full.
    """
    # Closed below, where it is removed as well.
    file = tempfile.SpooledTemporaryFile(max_size=8 * CHUNK_BYTES)  # noqa: SIM115
    try:
        with disk_errors("keep the body of the request"):
            async for chunk in chunks(request):
                _grow(request, len(chunk))
                await run_in_threadpool(file.write, chunk)
            file.seek(0)
        yield file
    finally:
        file.close()


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield a request's body in parts of one MiB; the last may be smaller."""
    waiting = bytearray()
    async for part in request.stream():
        waiting += part
        while len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting[:CHUNK_BYTES])
            del waiting[:CHUNK_BYTES]
    if waiting:
        yield bytes(waiting)


async def stream_up(request: Request, method: Callable[..., Any], make: Callable[..., Message], header: Message) -> Any:
    """Send a request's body to a call that takes a file in chunks, as it arrives, and return the call's answer.

    Args:
        request: The request.
        method: The call.
        make: Makes a message of its stream, with `header=`, `chunk=` or `end=`.
        header: First part.

    Raises:
        Problem: The body is too large, or the call failed.
    """
    body = _Body(chunks(request), asyncio.get_running_loop())

    def messages() -> Iterator[Message]:
        yield make(header=header)
        size = 0
        for chunk in body:
            size += len(chunk)
            yield make(chunk=chunk)
        # Without an end the orchestrator refuses the upload, so that a body that broke off leaves nothing behind.
        yield make() if body.failure is not None else make(end={"size": size})

    def call() -> Any:
        try:
            return method(messages(), timeout=WORK_SECONDS)
        except grpc.RpcError as error:
            raise from_call(error, upload=True) from None

    try:
        return await run_in_threadpool(call)
    except (CellsparseError, Problem):
        if body.failure is not None:
            raise body.failure from None
        raise


class _Body:
    """A body that is read on the event loop, for a thread of gRPC that sends it on."""

    def __init__(self, source: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._loop = loop
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                future = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
                chunk = future.result(BODY_SECONDS)
            except TimeoutError:
                self.failure = too_slow()
                return
            except ClientDisconnect:
                self.failure = Problem(HTTPStatus.BAD_REQUEST, "The client went away in the middle of the body.")
                return
            except Exception as error:  # noqa: BLE001 - it is raised again where the body is awaited
                self.failure = error
                return
            if chunk is None:
                return
            yield chunk

    async def _next(self) -> bytes | None:
        return await anext(self._source, None)
