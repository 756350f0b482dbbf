"""Tables of tokens and changes."""

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from cellsparse import access, enum_names
from cellsparse.cli.render import new_table, when
from cellsparse_proto.v1 import access_pb2


def caller_line(caller: access_pb2.GetCallerResponse) -> str:
    """Return who a caller is."""
    project = f" of project {caller.project_id}" if caller.project_id else ""
    return f"{caller.name!r}, {enum_names.name(access.ROLES, caller.role)}{project}"


def token_line(token: access_pb2.Token) -> str:
    """Return what a token may do and for how long."""
    project = f" of project {token.project_id}" if token.project_id else ""
    end = f"until {when(token.expires_at)}" if token.HasField("expires_at") else "without an end"
    return f"{enum_names.name(access.ROLES, token.role)}{project}, {end}"


def token_table(tokens: Iterable[access_pb2.Token]) -> Table:
    """Return one row per token."""
    table = new_table("ID", "NAME", "ROLE", "PROJECT", "MADE", "ENDS", "USED", "STATE")
    for token in tokens:
        ends = when(token.expires_at) if token.HasField("expires_at") else "never"
        used = when(token.used_at) if token.HasField("used_at") else "never"
        role = enum_names.name(access.ROLES, token.role)
        table.add_row(
            token.id, token.name, role, token.project_id, when(token.created_at), ends, used, Text(_state(token))
        )
    return table


def change_line(change: access_pb2.Change) -> str:
    """Return a change as one line."""
    who = f"{change.name} ({change.token_id})" if change.token_id else change.name
    about = f" {change.subject}" if change.subject else ""
    return f"{when(change.time)}  {change.result}  {change.method}{about}  {who} from {change.source}"


def _state(token: access_pb2.Token) -> str:
    if token.HasField("revoked_at"):
        return "revoked"
    over = token.HasField("expires_at") and token.expires_at.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)
    return "ended" if over else "valid"
