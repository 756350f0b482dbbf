"""`cellsparse undelete`, `cellsparse deleted`, and the collection of what nothing needs any more."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from cellsparse import enum_names
from cellsparse.cli import options
from cellsparse.cli.output import Output
from cellsparse.cli.render import new_table, when
from cellsparse.client import Client
from cellsparse_proto.v1 import admin_pb2, orchestrator_pb2

_COLLECTED = admin_pb2.CollectKind.DESCRIPTOR
_DELETED = orchestrator_pb2.DeletedKind.DESCRIPTOR
_MIB = 2**20


class Kind(StrEnum):
    """What can be undeleted."""

    DATASET = "dataset"
    RUN = "run"
    MODEL = "model"
    STUDY = "study"
    PROJECT = "project"


def deleted(
    kind: Annotated[Kind | None, typer.Option(help="Only this kind.", show_default=False)] = None,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """List what is deleted and can be undeleted, newest deletion first."""
    with Client(address) as client:
        found = list(client.deleted(kind.value if kind else ""))
    Output(json).result([enum_names.plain(each) for each in found], _deleted_table(found))


def undelete(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="dataset, run, model, study or project.")],
    thing: Annotated[str, typer.Argument(metavar="ID", help="Its id, as `cellsparse deleted` shows it.")],
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Undelete something, as it was."""
    with Client(address) as client:
        client.undelete(kind.value, thing)
    Output(json).result({"undeleted": thing, "kind": kind.value}, f"{kind.value} {thing} is back")


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, but say what would be removed.")] = False,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Remove for good what was deleted longer ago than the grace time, and what nothing refers to any more.

    The orchestrator does so by itself, too: see CELLSPARSE_COLLECT_HOURS.
    """
    output = Output(json)
    summary = admin_pb2.CollectSummary()
    with Client(address) as client:
        for answer in client.collect(dry_run=dry_run):
            summary = answer.summary if answer.HasField("summary") else summary
    for part in summary.collected:
        output.line(enum_names.plain(part), f"{enum_names.name(_COLLECTED, part.kind)}: {_amounts(part)}")
    for sentence in summary.left_out:
        output.warn(sentence)
    done = "would be removed" if dry_run else "removed"
    text = f"{summary.expired} deleted things are over their grace time; {done}: {_amounts(summary)}"
    output.line(enum_names.plain(summary), text)


def _amounts(part: admin_pb2.Collected | admin_pb2.CollectSummary) -> str:
    removed = f"{part.objects} objects ({part.bytes / _MIB:.1f} MiB)"
    if not part.waiting_objects:
        return removed
    return f"{removed}, {part.waiting_objects} more wait ({part.waiting_bytes / _MIB:.1f} MiB)"


def _deleted_table(found: Iterable[orchestrator_pb2.Deleted]) -> Table:
    table = new_table("KIND", "ID", "NAME", "DELETED", "UNTIL")
    for each in found:
        kind = enum_names.name(_DELETED, each.kind)
        table.add_row(kind, each.id, each.name, when(each.deleted_at), when(each.ends_at))
    return table
