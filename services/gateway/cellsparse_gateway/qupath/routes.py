"""Addresses that QuPath's extensions call: each with and without its final slash, and never a redirect.

Each request works in a thread of its own: a training takes minutes, and neither other requests nor health checks wait.
A client that goes away ends nothing: the training goes on, and its model is there at the next request.
"""

import asyncio
import contextvars
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from cellsparse_common.errors import CellsparseError
from cellsparse_gateway import uploads
from cellsparse_gateway.problems import Problem
from cellsparse_gateway.qupath.bodies import AnyBody, ResetBody, SegmentBody, read_body
from cellsparse_gateway.qupath.refusals import Refusal, from_error
from cellsparse_gateway.qupath.segmenting import Segmenting

_log = logging.getLogger(__name__)
BACKENDS = {"cellpose": "cellpose", "stardist": "stardist", "elephant": "unet"}
"""Backends by the first word of the address."""
WARNING_HEADER = "X-Cellsparse-Warning"
Answer = TypeVar("Answer")
Handler = Callable[[Request], Awaitable[Response]]


def router(segmenting: Segmenting) -> APIRouter:
    """Return the addresses of the Cellsparse extension."""
    routes = APIRouter()
    for word, backend in BACKENDS.items():
        _add(routes, [f"/{word}", f"/{word}/"], _segment(segmenting, backend))
        # Without its final slash the address that a user has typed makes "/cellposereset/".
        resets = [f"/{word}{slash}reset{end}" for slash in ("/", "") for end in ("/", "")]
        _add(routes, resets, _reset(segmenting, backend))
    _add(routes, ["/", "/reset", "/reset/"], _no_algorithm)
    return routes


def _add(routes: APIRouter, paths: list[str], handler: Handler) -> None:
    for path in paths:
        routes.add_api_route(path, answered(handler), methods=["POST"], include_in_schema=False)


def answered(handler: Handler) -> Handler:
    """Return a handler whose refusals are answers of one sentence, as are errors of ours."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return sentence(refusal.status, refusal.sentence, refusal.headers)
        except Problem as problem:
            return sentence(HTTPStatus(problem.status), problem.detail)
        except ClientDisconnect:
            return sentence(HTTPStatus.BAD_REQUEST, "The request ended before all of it had come.")
        except CellsparseError as error:
            known = from_error(error)
            return sentence(known.status, known.sentence, known.headers)
        except Exception:  # noqa: BLE001 - a QuPath user gets a sentence, the log the rest
            _log.exception("%s failed", request.url.path)
            return sentence(
                HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed for a reason of its own; its log says which."
            )

    return answer


def sentence(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer of one sentence."""
    return as_json({"detail": detail}, status, headers)


def as_json(content: Any, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    text = json.dumps(content, separators=(",", ":"))
    return Response(text, status, headers, media_type="application/json")


async def body_of(request: Request, kind: type[AnyBody]) -> AnyBody:
    """Return a request's body.

    Raises:
        Refusal: It is not valid.
        Problem: It is larger than the gateway takes.
    """
    data = await uploads.read_body(request)
    return await in_thread(lambda: read_body(kind, data))


async def in_thread(work: Callable[[], Answer]) -> Answer:
    """Run work in a daemon thread of its own, which neither a client that goes away nor the server's end waits for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Answer] = loop.create_future()

    def deliver(give: Callable[[Any], None], what: Any) -> None:
        if not done.done():
            give(what)

    def run() -> None:
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is awaited
            outcome: tuple[Callable[[Any], None], Any] = (done.set_exception, error)
        else:
            outcome = (done.set_result, answer)
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, *outcome)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="qupath", daemon=True).start()
    return await done


def _segment(segmenting: Segmenting, backend: str) -> Handler:
    async def segment(request: Request) -> Response:
        body = await body_of(request, SegmentBody)
        found = await in_thread(lambda: segmenting.segment(backend, body))
        headers = {WARNING_HEADER: found.warning} if found.warning else None
        return await in_thread(lambda: as_json(found.features, headers=headers))

    return segment


def _reset(segmenting: Segmenting, backend: str) -> Handler:
    async def reset(request: Request) -> Response:
        body = await body_of(request, ResetBody)
        await in_thread(lambda: segmenting.reset(backend, body))
        return as_json("")

    return reset


async def _no_algorithm(request: Request) -> Response:
    base = str(request.base_url)
    urls = ", ".join(f"{base}{word}/" for word in BACKENDS)
    raise Refusal(HTTPStatus.NOT_FOUND, f"The address names no algorithm; QuPath's Server URL is one of {urls}.")
