"""AccessService: who calls, tokens, and the record of changes."""

import grpc

from cellsparse_orchestrator.access.changes import Changes
from cellsparse_orchestrator.access.tokens import Tokens
from cellsparse_orchestrator.caller import current
from cellsparse_orchestrator.clock import optional_timestamp
from cellsparse_proto.v1 import access_pb2, access_pb2_grpc


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """Keeps tokens, and shows what was changed.

    Args:
        tokens: The table of tokens.
        changes: The table of changes.
    """

    def __init__(self, tokens: Tokens, changes: Changes) -> None:
        self._tokens = tokens
        self._changes = changes

    def GetCaller(
        self, request: access_pb2.GetCallerRequest, context: grpc.ServicerContext
    ) -> access_pb2.GetCallerResponse:
        """Say who the caller is."""
        caller = current()
        if caller is None:
            return access_pb2.GetCallerResponse()
        return access_pb2.GetCallerResponse(
            authentication=True,
            name=caller.name,
            role=caller.role,
            project_id=caller.project_id or "",
            expires_at=optional_timestamp(caller.expires_at),
        )

    def CreateToken(
        self, request: access_pb2.CreateTokenRequest, context: grpc.ServicerContext
    ) -> access_pb2.CreateTokenResponse:
        """Make a token."""
        days = request.days if request.HasField("days") else None
        token, secret = self._tokens.add(request.name, request.role, request.project, days)
        return access_pb2.CreateTokenResponse(token=token, secret=secret)

    def ListTokens(
        self, request: access_pb2.ListTokensRequest, context: grpc.ServicerContext
    ) -> access_pb2.ListTokensResponse:
        """List tokens, newest first."""
        found, token = self._tokens.page(request.page)
        return access_pb2.ListTokensResponse(tokens=found, next_page_token=token)

    def RevokeToken(
        self, request: access_pb2.RevokeTokenRequest, context: grpc.ServicerContext
    ) -> access_pb2.RevokeTokenResponse:
        """Revoke a token."""
        return access_pb2.RevokeTokenResponse(token=self._tokens.revoke(request.token_id))

    def ListChanges(
        self, request: access_pb2.ListChangesRequest, context: grpc.ServicerContext
    ) -> access_pb2.ListChangesResponse:
        """List changes, newest first."""
        found, token = self._changes.page(request.page, request.token_id, request.project_id)
        return access_pb2.ListChangesResponse(changes=found, next_page_token=token)
