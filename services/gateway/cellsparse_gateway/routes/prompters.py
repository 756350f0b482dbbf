"""Weights of prompters that users bring."""

from typing import Annotated

import grpc
from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from cellsparse_gateway.answers import ID_PATTERN, Id, PageSize, PageToken, message_answer, nothing
from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_gateway.problems import from_call
from cellsparse_gateway.prompter_zip import upload_prompter
from cellsparse_gateway.prompts.stored import StoredPrompters
from cellsparse_gateway.schemas import Schemas, answers, list_of, takes_file
from cellsparse_gateway.uploads import spooled
from cellsparse_proto.v1 import prompter_pb2

Name = Annotated[str, Query(pattern=ID_PATTERN)]
Licence = Annotated[str, Query(min_length=1, max_length=200, description="Licence of the weights, shown to people.")]
Sha256 = Annotated[str, Query(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file, hex.")]


def router(orchestrator: Orchestrator, schemas: Schemas, stored: StoredPrompters) -> APIRouter:
    """Return the routes of prompters."""
    routes = APIRouter(tags=["prompts"])
    schema = schemas.ref(prompter_pb2.Prompter)

    @routes.get("/prompters", responses=answers(list_of("prompters", schema)))
    def list_prompters(page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        """List the prompters whose weights users brought, newest first."""
        request = prompter_pb2.ListPromptersRequest(page={"page_size": page_size, "page_token": page_token})
        return message_answer(orchestrator.prompters.ListPrompters(request, timeout=ASK_SECONDS))

    @routes.post(
        "/prompters", status_code=201, responses=answers(schema, 201), openapi_extra=takes_file("application/zip")
    )
    async def add_prompter(
        request: Request, name: Name, licence: Licence, encoder_sha256: Sha256, decoder_sha256: Sha256
    ) -> Response:
        """Add a Segment Anything model. The body is a zip of encoder.onnx and decoder.onnx."""
        header = prompter_pb2.AddPrompterHeader(
            name=name, licence=licence, encoder_sha256=encoder_sha256, decoder_sha256=decoder_sha256
        )
        async with spooled(request) as file:
            try:
                made = await run_in_threadpool(upload_prompter, orchestrator, header, file)
            except grpc.RpcError as error:
                raise from_call(error, upload=True) from None
        stored.forget_list()
        return message_answer(made, 201)

    @routes.post("/prompters/{prompter}/check", status_code=204, responses=answers(None, 204))
    def check_prompter(prompter: Id) -> Response:
        """Load a prompter's weights into this gateway and run them once, as its first click does."""
        stored.check(prompter)
        return nothing()

    @routes.delete("/prompters/{prompter}", status_code=204, responses=answers(None, 204))
    def delete_prompter(prompter: Id) -> Response:
        """Delete a prompter with its weights."""
        orchestrator.prompters.DeletePrompter(prompter_pb2.DeletePrompterRequest(name=prompter), timeout=ASK_SECONDS)
        stored.forget_list()
        return nothing()

    return routes
