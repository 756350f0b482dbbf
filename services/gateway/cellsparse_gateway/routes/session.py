"""Signing in and out of the page, and who is signed in."""

from html import escape
from typing import Annotated, Any
from urllib.parse import urlsplit

import grpc
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from cellsparse_common.errors import CellsparseError, Unauthenticated, Unavailable, from_rpc_error
from cellsparse_gateway import identity
from cellsparse_gateway.answers import json_answer, message_answer, nothing
from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_gateway.oidc import Registration, SignIn, Tokens
from cellsparse_gateway.problems import Problem
from cellsparse_gateway.schemas import Schemas, answers, object_of, takes
from cellsparse_gateway.uploads import json_body
from cellsparse_proto.v1 import access_pb2

_BODY = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"token": {"type": "string", "minLength": 1, "maxLength": 1000}},
    "required": ["token"],
}
_REMEMBERED = "cellsparse_sign_in"
"""Cookie of a sign-in at the provider that has begun."""
_REMEMBERED_SECONDS = 600
_REFRESH = "cellsparse_refresh"
"""Cookie with what the provider gives the next tokens for."""
_PROVIDER_PATH = "/api/v1/session/oidc"
"""Where browsers send both of these cookies."""


def router(orchestrator: Orchestrator, schemas: Schemas, registration: Registration | None = None) -> APIRouter:
    """Return the routes of the page's session.

    Args:
        orchestrator: Knows the tokens.
        schemas: For the description.
        registration: How this server is known to an identity provider; None: nobody signs in there.
    """
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
        answer.delete_cookie(_REFRESH, path=_PROVIDER_PATH, httponly=True, samesite="strict")
        return answer

    @routes.delete("/session", status_code=204, responses=answers(None, 204))
    def sign_out() -> Response:
        """Forget the cookies. The token stays valid."""
        answer = nothing()
        answer.delete_cookie(identity.COOKIE, httponly=True, samesite="strict")
        answer.delete_cookie(_REFRESH, path=_PROVIDER_PATH, httponly=True, samesite="strict")
        return answer

    @routes.get("/session/ways", responses=answers(object_of(provider={"type": "string"})))
    def ways() -> Response:
        """Say how one can sign in: always with a token, and at `provider`, unless that is empty."""
        return json_answer({"provider": urlsplit(registration.issuer).hostname if registration else ""})

    if registration is not None:
        routes.include_router(provider_routes(orchestrator, registration))
    return routes


def provider_routes(orchestrator: Orchestrator, registration: Registration) -> APIRouter:
    """Return the routes of sessions that an identity provider opens. The first two are pages, not calls."""
    routes = APIRouter(include_in_schema=False)
    sign_in = SignIn(registration)
    secure = registration.redirect_url.startswith("https://")

    def check(tokens: Tokens, request: Request) -> None:
        """Make sure that the orchestrator takes a token; raises CellsparseError."""
        if not identity.plain(tokens.shown):
            raise Unauthenticated("The identity provider's token has characters that no header can hold.")
        identity.enter(tokens.shown, request.client.host if request.client else "")
        try:
            orchestrator.access.GetCaller(access_pb2.GetCallerRequest(), timeout=ASK_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def keep(answer: Response, tokens: Tokens) -> Response:
        """Put the tokens into cookies that no script can read."""
        answer.set_cookie(identity.COOKIE, tokens.shown, httponly=True, samesite="strict", secure=secure)
        if tokens.refresh:
            answer.set_cookie(
                _REFRESH, tokens.refresh, path=_PROVIDER_PATH, httponly=True, samesite="strict", secure=secure
            )
        return answer

    @routes.get("/session/oidc")
    def begin() -> Response:
        """Send the browser to the provider."""
        try:
            address, remembered = sign_in.begin()
        except CellsparseError as error:
            return _failed(error)
        answer = RedirectResponse(address, 302)
        answer.set_cookie(
            _REMEMBERED,
            remembered,
            max_age=_REMEMBERED_SECONDS,
            path=_PROVIDER_PATH,
            httponly=True,
            samesite="lax",  # it must come with the browser that another site, the provider, sends back
            secure=secure,
        )
        return answer

    @routes.get("/session/oidc/callback")
    def finish(request: Request, code: str = "", state: str = "", error: str = "") -> Response:
        """Take the browser back, and keep the provider's token if the orchestrator takes it."""
        if error or not code:
            return _failed(Unauthenticated("The identity provider did not sign you in."))
        try:
            tokens = sign_in.finish(code, state, request.cookies.get(_REMEMBERED, ""))
            check(tokens, request)
        except CellsparseError as failed:
            return _failed(failed)
        answer = keep(RedirectResponse("/", 302), tokens)
        answer.delete_cookie(_REMEMBERED, path=_PROVIDER_PATH, httponly=True, samesite="lax", secure=secure)
        return answer

    @routes.post("/session/oidc/renew", status_code=204)
    def renew(request: Request) -> Response:
        """Let the provider give the session another token, before or after the last one has ended."""
        refresh = identity.plain(request.cookies.get(_REFRESH, ""))
        if not refresh:
            raise Unauthenticated("This session cannot be renewed: sign in again.")
        tokens = sign_in.renew(refresh)
        check(tokens, request)
        return keep(nothing(), tokens)

    return routes


def _failed(error: CellsparseError) -> Response:
    status = 503 if isinstance(error, Unavailable) else 401
    text = f"<p>{escape(error.message)}</p><p><a href='/'>Back to the page</a></p>"
    page = f"<!doctype html><html lang='en'><title>Cellsparse: sign in</title>{text}</html>"
    return HTMLResponse(page, status)
