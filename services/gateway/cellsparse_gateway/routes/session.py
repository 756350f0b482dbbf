"""Signing in and out of the page, and who is signed in."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from cellsparse_gateway import identity
from cellsparse_gateway.answers import message_answer, nothing
from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_gateway.problems import Problem
from cellsparse_gateway.schemas import Schemas, answers, takes
from cellsparse_gateway.uploads import json_body
from cellsparse_proto.v1 import access_pb2

_BODY = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"token": {"type": "string", "minLength": 1, "maxLength": 1000}},
    "required": ["token"],
}


def router(orchestrator: Orchestrator, schemas: Schemas) -> APIRouter:
    """Return the routes of the page's session."""
    routes = APIRouter(tags=["session"])
    caller_schema = schemas.without(access_pb2.GetCallerResponse)

    def caller() -> Response:
        return message_answer(orchestrator.access.GetCaller(access_pb2.GetCallerRequest(), timeout=ASK_SECONDS))

    @routes.get("/session", responses=answers(caller_schema))
    def get_session() -> Response:
        """Say who the caller is."""
        return caller()

    @routes.post("/session", responses=answers(caller_schema), openapi_extra=takes(_BODY))
    def sign_in(request: Request, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Keep a token that the orchestrator takes in a cookie that no script can read."""
        given = body.get("token") if isinstance(body, dict) else None
        token = identity.plain(given) if isinstance(given, str) else ""
        if not token:
            sentence = "token is none: one line of letters, digits and ._~+/=- is expected."
            raise Problem(422, sentence, [("token", sentence)])
        identity.enter(token, request.client.host if request.client else "")
        answer = caller()
        # Signed in over TLS, which may end at a proxy: then browsers send the cookie over TLS only.
        secure = request.headers.get("origin", "").startswith("https://")
        answer.set_cookie(identity.COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return answer

    @routes.delete("/session", status_code=204, responses=answers(None, 204))
    def sign_out() -> Response:
        """Forget the cookie. The token stays valid."""
        answer = nothing()
        answer.delete_cookie(identity.COOKIE, httponly=True, samesite="strict")
        return answer

    return routes
