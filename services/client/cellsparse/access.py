"""Tokens, and the record of changes."""

from collections.abc import Iterator
from typing import Any

from cellsparse import enum_names
from cellsparse.connection import Connection
from cellsparse_proto.v1 import access_pb2, rules_pb2

ROLES = rules_pb2.DESCRIPTOR.enum_types_by_name["Role"]


def create_token(
    connection: Connection, name: str, role: str, project: str, days: int | None
) -> access_pb2.CreateTokenResponse:
    """Make a token (see `cellsparse.Client.create_token`)."""
    number: Any = enum_names.number(ROLES, role, "role")
    request = access_pb2.CreateTokenRequest(name=name, role=number, project=project, days=days)
    answer: access_pb2.CreateTokenResponse = connection.call("CreateToken", request)
    return answer


def changes(connection: Connection, token_id: str, project_id: str) -> Iterator[access_pb2.Change]:
    """Yield changes (see `cellsparse.Client.changes`)."""

    def request(page: Any) -> access_pb2.ListChangesRequest:
        return access_pb2.ListChangesRequest(page=page, token_id=token_id, project_id=project_id)

    return connection.pages("ListChanges", request, "changes")
