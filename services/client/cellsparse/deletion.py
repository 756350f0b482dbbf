"""Deleting, undeleting and collecting."""

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from cellsparse import enum_names
from cellsparse.connection import Connection
from cellsparse.errors import InvalidArgument
from cellsparse_proto.v1 import admin_pb2, dataset_pb2, orchestrator_pb2, project_pb2, study_pb2

Kind: TypeAlias = Literal["dataset", "run", "model", "study", "project"]
KINDS: tuple[Kind, ...] = ("dataset", "run", "model", "study", "project")
COLLECT_SECONDS = 86_400.0
"""Longest time of a collection."""
_FILES: dict[str, Any] = {
    "dataset": dataset_pb2,
    "run": orchestrator_pb2,
    "model": orchestrator_pb2,
    "study": study_pb2,
    "project": project_pb2,
}


def delete(connection: Connection, kind: str, thing_id: str) -> None:
    """Delete something (see `cellsparse.Client.delete`)."""
    _call(connection, "Delete", kind, thing_id)


def undelete(connection: Connection, kind: str, thing_id: str) -> None:
    """Undelete something (see `cellsparse.Client.undelete`)."""
    _call(connection, "Undelete", kind, thing_id)


def listed(connection: Connection, kind: str) -> Iterator[orchestrator_pb2.Deleted]:
    """Yield what is deleted (see `cellsparse.Client.deleted`)."""
    number: Any = enum_names.number(orchestrator_pb2.DeletedKind.DESCRIPTOR, kind, "kind") if kind else 0

    def request(page: Any) -> orchestrator_pb2.ListDeletedRequest:
        return orchestrator_pb2.ListDeletedRequest(page=page, kind=number)

    return connection.pages("ListDeleted", request, "deleted")


def collect(connection: Connection, *, dry_run: bool) -> Iterator[admin_pb2.CollectResponse]:
    """Yield progress and the summary of a collection (see `cellsparse.Client.collect`)."""
    request = admin_pb2.CollectRequest(dry_run=dry_run)
    yield from connection.stream("Collect", request, timeout=COLLECT_SECONDS)


def _call(connection: Connection, verb: str, kind: str, thing_id: str) -> None:
    if kind not in _FILES:
        raise InvalidArgument(f"kind is {kind!r}; allowed: {', '.join(KINDS)}.", "kind")
    method = f"{verb}{kind.capitalize()}"
    request = getattr(_FILES[kind], f"{method}Request")(**{f"{kind}_id": thing_id})
    connection.call(method, request)
