"""`cellsparse admin ...`."""

from itertools import islice
from typing import Annotated, Any

import typer

from cellsparse import enum_names
from cellsparse.cli import options
from cellsparse.cli.exits import Exit
from cellsparse.cli.names import find_project
from cellsparse.cli.output import Output
from cellsparse.cli.render_access import change_line
from cellsparse.client import Client
from cellsparse_proto.v1 import admin_pb2

app = typer.Typer(help="For whoever runs an installation.", no_args_is_help=True)

_USED = ("bytes", "items", "runs", "gpu_hours")
_PROBLEM = admin_pb2.DESCRIPTOR.enum_types_by_name["ScrubProblem"]


@app.command()
def scrub(
    rate: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="MIB", help="Most that is read per second, MiB.")
    ] = 50,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Read all images and label images in the store and list what is missing, rotten or unreferenced.

    Nothing is changed or deleted. Ends with code 1 if anything is missing or rotten.
    """
    output = Output(json)
    summary = admin_pb2.ScrubSummary()
    with Client(address) as client, output.bar("blobs read") as update:
        for answer in client.scrub(max_mib_per_second=rate):
            if answer.HasField("progress"):
                update(answer.progress.blobs_done, answer.progress.blobs_total)
            elif answer.HasField("finding"):
                output.line(enum_names.plain(answer.finding), _sentence(answer.finding))
            else:
                summary = answer.summary
    text = (
        f"{summary.blobs} blobs read ({summary.bytes_read / 2**20:.1f} MiB): {summary.missing} missing, "
        f"{summary.rotten} rotten, {summary.unreferenced} unreferenced "
        f"({summary.unreferenced_bytes / 2**20:.1f} MiB)"
    )
    output.line(enum_names.plain(summary), text)
    if summary.missing or summary.rotten:
        raise typer.Exit(Exit.RUN_FAILED)


@app.command()
def audit(
    token: Annotated[str, typer.Option(metavar="ID", help="Of this token only.")] = "",
    project: Annotated[str, typer.Option(metavar="ID", help="By tokens of this project only.")] = "",
    most: Annotated[int, typer.Option(min=1, metavar="N", help="Most lines to print.")] = 100,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """List the calls that changed something, or tried to, newest first: who, what, when, from where, and the result.

    They are recorded while authentication is on.
    """
    output = Output(json)
    with Client(address) as client:
        for change in islice(client.changes(token_id=token, project_id=project), most):
            output.line(enum_names.plain(change), change_line(change))


@app.command()
def quota(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Id, beginning of an id, or name.")],
    mib: Annotated[int | None, typer.Option(min=0, help="Most MiB of datasets, images and models.")] = None,
    items: Annotated[int | None, typer.Option(min=0, help="Most items of datasets and images together.")] = None,
    runs: Annotated[int | None, typer.Option(min=0, help="Most runs that have not ended.")] = None,
    gpu_hours: Annotated[
        float | None, typer.Option(min=0, help="Most hours of attempts, times their processes.")
    ] = None,
    checkpoint_days: Annotated[
        int | None,
        typer.Option(min=0, max=3650, help="Days after which an ended run keeps its best and last checkpoint only."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the limits that are not given.")] = False,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Show the limits of a project and what it uses; with options, set them. Others stay as they are."""
    size = None if mib is None else mib * 2**20
    given = {"bytes": size, "items": items, "runs": runs, "gpu_hours": gpu_hours, "checkpoint_days": checkpoint_days}
    with Client(address) as client:
        found = find_project(client, project)
        if clear or any(value is not None for value in given.values()):
            before = {} if clear else {field.name: value for field, value in found.limits.ListFields()}
            wanted: dict[str, Any] = before | {name: value for name, value in given.items() if value is not None}
            found = client.set_limits(found.id, **wanted)
    limits = {field.name: value for field, value in found.limits.ListFields()}
    used = [f"{getattr(found.use, name):g} of {limits[name]:g} {name}" for name in _USED if name in limits]
    if "checkpoint_days" in limits:
        used.append(f"checkpoints are kept for {limits['checkpoint_days']} days")
    Output(json).result(enum_names.plain(found), f"{found.id} ({found.name}): {', '.join(used) or 'no limits'}")


def _sentence(finding: admin_pb2.ScrubFinding) -> str:
    more = ", ..." if finding.users_total > len(finding.users) else ""
    users = f" Used by {', '.join(finding.users)}{more}." if finding.users else ""
    return f"{enum_names.name(_PROBLEM, finding.problem)}: {finding.message}{users}"
