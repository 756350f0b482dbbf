"""`cellsparse login`, `logout` and `token ...`: who may do what."""

import getpass
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cellsparse import enum_names
from cellsparse.cli import options, render_access
from cellsparse.cli.output import Output
from cellsparse.client import Client
from cellsparse.errors import InvalidArgument, Unauthenticated
from cellsparse.home import chosen_address, find_address, home_dir
from cellsparse.tokens import checked, forget_login, keep_login, read_token

app = typer.Typer(help="Tokens: who may do what. For administrators.", no_args_is_help=True)


class Role(StrEnum):
    """What a token may do; each role all that those before it may."""

    READER = "reader"
    ANNOTATOR = "annotator"
    ADMIN = "admin"


def login(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="File with the token; - or none: it is asked for.")
    ] = None,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Keep a token for an orchestrator in CELLSPARSE_HOME, in a file that nobody else may read."""
    where = _where(address)
    output = Output(json)
    if not _asks_for_tokens(address):
        output.result({"address": where, "authentication": False}, f"{where} asks for no token; nothing is kept")
        return
    token = _asked() if file is None or str(file) == "-" else read_token(file)
    with Client(address, token=token) as client:
        caller = client.caller()
    path = keep_login(where, token)
    whose = render_access.caller_line(caller)
    output.result({"address": where, **enum_names.plain(caller)}, f"{where} knows you as {whose}; kept in {path}")


def logout(json: options.Json = False, address: options.Address = None) -> None:
    """Forget the token that `cellsparse login` keeps for an orchestrator."""
    where = _where(address)
    found = forget_login(where)
    text = f"the token for {where} is forgotten" if found else f"no token is kept for {where}"
    Output(json).result({"address": where, "forgotten": found}, text)


@app.command()
def create(
    role: Annotated[Role, typer.Option(help="What it may do.")],
    project: Annotated[
        str, typer.Option(metavar="PROJECT", help="Its project, id or name; only admins may do without.")
    ] = "",
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="When it ends, days from now.", show_default="never")
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="TEXT", help="Whose it is, or what it is for.", show_default="role and project")
    ] = "",
    make_project: Annotated[bool, typer.Option("--make-project", help="Make the project, which is new.")] = False,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Make a token and print it, once: the server keeps only a hash of it."""
    if make_project and not project:
        raise InvalidArgument("--make-project needs the new project's name: --project NAME.")
    with Client(address) as client:
        wanted = client.create_project(project).id if make_project else project
        made = client.create_token(name or _name(role, project), role, project=wanted, days=days)
    output = Output(json)
    output.result({**enum_names.plain(made.token), "secret": made.secret}, made.secret)
    output.note(f"{made.token.id}: {render_access.token_line(made.token)}; the token is not shown again")


@app.command("list")
def list_(json: options.Json = False, address: options.Address = None) -> None:
    """List all tokens, newest first, with those that have ended."""
    with Client(address) as client:
        found = list(client.tokens())
    Output(json).result([enum_names.plain(each) for each in found], render_access.token_table(found))


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="ID", help="Id of a token, as `cellsparse token list` shows it.")],
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Revoke a token for good, at once."""
    with Client(address) as client:
        revoked = client.revoke_token(token)
    Output(json).result(enum_names.plain(revoked), f"revoked {revoked.id} ({revoked.name})")


def _where(address: str | None) -> str:
    return chosen_address(address) or find_address(home_dir())


def _asks_for_tokens(address: str | None) -> bool:
    with Client(address, token="") as nobody:
        try:
            return nobody.caller().authentication
        except Unauthenticated:
            return True


def _asked() -> str:
    return checked(getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.readline(), "The input")


def _name(role: str, project: str) -> str:
    return f"{role} {re.sub('[^A-Za-z0-9._@ -]', '-', project)}".strip()[:100]
