"""Addresses of samapi 0.7.1 as QuPath's SAM extension calls them, each with and without its final slash.

Users mistype the base address, whose final slash the extension then leaves out: "/samweights/" means "/sam/weights/".
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.metadata import version

from fastapi import APIRouter, Request, Response

from cellsparse_gateway.prompts.types import Prompter
from cellsparse_gateway.qupath.bodies import AutoMaskBody, PromptBody
from cellsparse_gateway.qupath.prompting import answer_everything, answer_prompt, weights
from cellsparse_gateway.qupath.refusals import Refusal, unprocessable
from cellsparse_gateway.qupath.routes import Handler, answered, as_json, body_of, in_thread

SAMAPI = "0.7.1"
"""Version of the interface."""
_FOREIGN = ("video", "upload", "sam3", "sam3video")


def sam_router(prompters: Callable[[], Mapping[str, Prompter]]) -> APIRouter:
    """Return the addresses of the SAM extension.

    Args:
        prompters: Gives what answers prompts, by name; "classical" is one of them.
    """
    routes = APIRouter()

    def add(word: str, method: str, handler: Handler) -> None:
        paths = [f"/sam{slash}{word}{end}" for slash in ("/", "") for end in ("/", "")] if word else ["/sam", "/sam/"]
        for path in paths:
            routes.add_api_route(path, answered(handler), methods=[method], include_in_schema=False)

    async def prompt(request: Request) -> Response:
        body = await body_of(request, PromptBody)
        return as_json(await in_thread(lambda: answer_prompt(prompters(), body)))

    async def everything(request: Request) -> Response:
        body = await body_of(request, AutoMaskBody)
        return as_json(await in_thread(lambda: answer_everything(body)))

    async def listed(request: Request) -> Response:
        return as_json(weights(await in_thread(prompters), request.query_params.get("type")))

    add("", "POST", prompt)
    add("automask", "POST", everything)
    add("version", "GET", _version)
    add("weights", "GET", listed)
    add("weights", "POST", _no_download)
    add("weights/cancel", "GET", _nothing_to_cancel)
    add("progress", "GET", _progress)
    for word in _FOREIGN:
        add(word, "POST", _not_here)
    return routes


async def _version(_: Request) -> Response:
    return Response(f"{SAMAPI}+cellsparse.{version('cellsparse-gateway')}", media_type="text/plain")


async def _progress(_: Request) -> Response:
    return as_json({"message": "Nothing is downloaded", "percent": 100})


async def _nothing_to_cancel(_: Request) -> Response:
    return Response("Nothing is downloaded", media_type="text/plain")


async def _no_download(_: Request) -> Response:
    raise unprocessable(
        "Cellsparse downloads no weights. Choose one that it lists, or add an ONNX model of your own to the server."
    )


async def _not_here(_: Request) -> Response:
    raise Refusal(
        HTTPStatus.NOT_IMPLEMENTED,
        "Cellsparse answers prompts in single images; text prompts, SAM 3 and videos need samapi itself.",
    )
