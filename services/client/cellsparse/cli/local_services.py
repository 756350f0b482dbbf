"""`cellsparse up`, `open`, `down` and `status`: the local services."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cellsparse import enum_names
from cellsparse.cli import options, render
from cellsparse.cli.exits import Exit
from cellsparse.cli.output import Output
from cellsparse.client import Client
from cellsparse.errors import Unavailable
from cellsparse.home import DEFAULT_HOME, START_SECONDS, STOP_SECONDS, home_dir
from cellsparse.tokens import INSECURE_VARIABLE
from cellsparse_proto.v1 import orchestrator_pb2


def up(
    json: options.Json = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay attached: the log goes to stderr, Ctrl-C stops the services.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.", show_default=False)
    ] = None,
    web_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of the page; 0 takes a free one [8000 if it is free].", show_default=False
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait until every service is healthy.")] = (
        START_SECONDS
    ),
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen beyond this machine even without TLS or without asking who calls."),
    ] = False,
) -> None:
    """Start the local services and wait until all are healthy.

    Data is kept in CELLSPARSE_HOME (default ~/.cellsparse), the log in logs/orchestrator.log below it.
    """
    from cellsparse import local_services

    output, home = Output(json), home_dir()
    if insecure:
        os.environ[INSECURE_VARIABLE] = "1"  # for what it starts
    if foreground:
        raise typer.Exit(local_services.foreground(home, port=port, web_port=web_port))
    with output.bar("starting") as update:

        def show(status: orchestrator_pb2.GetStatusResponse) -> None:
            update(sum(service.healthy for service in status.services), len(status.services))

        started, record, status = local_services.up(home, port=port, web_port=web_port, timeout=timeout, on_wait=show)
    url = local_services.page_url(status)
    document = {"started": started, "address": record.address, "page": url, "home": str(home)}
    document |= enum_names.plain(status)
    output.result(document, render.status_table(status))
    how = "started" if started else "already up"
    output.note(f"{how}: {record.address} (process {record.pid}), home {home}; `cellsparse down` stops it")
    _tell_page(output, url, started=started, asked=web_port)


def open_(json: options.Json = False, address: options.Address = None) -> None:
    """Open the page in the browser, and print its address."""
    import webbrowser

    from cellsparse import local_services

    with Client(address) as client:
        url = local_services.page_url(client.status())
    if not url:
        raise Unavailable("The page does not answer; `cellsparse up` starts it, `cellsparse status` says how it is.")
    opened = webbrowser.open(url)
    output = Output(json)
    output.result({"page": url, "opened": opened}, url)
    if not opened:
        output.note("no browser was found here; open this address in yours")


def _tell_page(output: Output, url: str, *, started: bool, asked: int | None) -> None:
    from cellsparse import local_services

    if not url:
        reason = (
            "clients need certificates, and the page asks for none: --web-port opens it"
            if os.environ.get("CELLSPARSE_TLS_CLIENT_CA")
            else "this installation is without the package cellsparse-gateway"
        )
        output.note(f"no page: {reason}")
        return
    port = int(url.rstrip("/").rpartition(":")[2])
    if not started and asked not in (None, 0, port):
        output.note(f"--web-port {asked} has no effect on services that are up; `cellsparse down` stops them")
    in_use = started and asked is None and home_dir() == Path.home() / DEFAULT_HOME
    if in_use and port != local_services.WEB_PORT and "CELLSPARSE_WEB_PORT" not in os.environ:
        output.note(
            f"port {local_services.WEB_PORT} is in use by another program, so the page is at port {port}; QuPath needs "
            "this one as its server's URL"
        )
    output.note(f"the page: {url} (`cellsparse open`)")


def down(
    json: options.Json = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait before killing what still runs.")] = (
        STOP_SECONDS
    ),
) -> None:
    """Stop all local services."""
    from cellsparse import local_services

    home = home_dir()
    count = local_services.down(home, timeout=timeout)
    text = f"stopped {count} processes of {home}" if count else f"nothing runs from {home}"
    Output(json).result({"stopped_processes": count, "home": str(home)}, text)


def status(json: options.Json = False, address: options.Address = None) -> None:
    """Show the state of the services.

    Exit code 4 unless all of them are healthy.
    """
    with Client(address) as client:
        answer = client.status()
    Output(json).result(enum_names.plain(answer), render.status_table(answer))
    if not all(service.healthy for service in answer.services):
        raise typer.Exit(Exit.UNAVAILABLE)
