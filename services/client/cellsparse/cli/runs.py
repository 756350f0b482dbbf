"""`cellsparse runs ...`: list, show, watch, cancel, delete, logs."""

from itertools import islice
from typing import Annotated

import typer

from cellsparse import enum_names
from cellsparse.cli import options, render
from cellsparse.cli.follow import Lost, detach, follow
from cellsparse.cli.names import find_dataset, find_run
from cellsparse.cli.output import Output
from cellsparse.client import Client
from cellsparse_proto.v1 import common_pb2

app = typer.Typer(help="Training runs.", no_args_is_help=True)


@app.command("list")
def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this state (again for more): queued, starting, running, retrying, succeeded, failed, cancelled."
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="Only this backend.")] = "",
    dataset: Annotated[str, typer.Option(help="Only this dataset.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most runs to list.")] = 50,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """List runs, newest first."""
    with Client(address) as client:
        dataset_id = find_dataset(client, dataset).id if dataset else ""
        found = list(islice(client.runs(states=state or [], backend=backend, dataset=dataset_id), limit))
    Output(json).result([enum_names.plain(run) for run in found], render.run_table(found))


@app.command()
def show(run: options.RunName, json: options.Json = False, address: options.Address = None) -> None:
    """Show one run."""
    with Client(address) as client:
        found = find_run(client, run)
    Output(json).result(enum_names.plain(found), render.run_details(found))


@app.command()
def watch(
    run: options.RunName,
    after: Annotated[int, typer.Option(min=0, help="Only events with a larger sequence number.")] = 0,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Watch a run until it has ended. Ctrl-C stops watching, not the run.

    With --json: lines of type "event", then the ended run as a line of type "run".
    """
    with Client(address) as client:
        follow(client, find_run(client, run), Output(json), after=after)


@app.command()
def cancel(run: options.RunName, json: options.Json = False, address: options.Address = None) -> None:
    """Cancel a run. A run that has ended does not change."""
    with Client(address) as client:
        stopped = client.cancel(find_run(client, run).id)
    state = enum_names.name(common_pb2.RunState.DESCRIPTOR, stopped.state)
    Output(json).result(enum_names.plain(stopped), f"run {stopped.id} will be cancelled; its state is {state}")


@app.command()
def delete(run: options.RunName, json: options.Json = False, address: options.Address = None) -> None:
    """Delete a run that has ended, with its checkpoints and logs. Its model stays."""
    with Client(address) as client:
        found = find_run(client, run)
        client.delete("run", found.id)
    text = f"deleted run {found.id} ({found.name}); `cellsparse undelete run {found.id}` brings it back"
    Output(json).result({"deleted": found.id}, text)


@app.command()
def logs(run: options.RunName, json: options.Json = False, address: options.Address = None) -> None:
    """Print the log of a run until it has ended. Ctrl-C stops printing, not the run."""
    output = Output(json)
    with Client(address) as client:
        found = find_run(client, run)
        lost = Lost(output.errors)
        try:
            for event in client.watch(found.id, on_lost=lost.say, on_back=lost.over):
                for line in [*event.training.log_lines, *([event.message] if event.message else [])]:
                    time = event.time.ToJsonString()
                    entry = {"time": time, "attempt": event.attempt, "line": line}
                    output.line(entry, f"{render.clock(event.time)}  {line}")
        except KeyboardInterrupt:
            if client.run(found.id).HasField("ended_at"):
                raise
            detach(found.id, output)
