"""`cellsparse prompter ...`."""

from typing import Annotated

import typer

from cellsparse import enum_names
from cellsparse.cli import options, render
from cellsparse.cli.output import Output
from cellsparse.client import Client
from cellsparse.errors import InvalidArgument

app = typer.Typer(help="Segment Anything models of your own, for clicks in the page.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits and dashes.")]


@app.command()
def add(
    name: Name,
    encoder: Annotated[str, typer.Option(metavar="FILE|URL", help="ONNX file; URLs: file:, https: or s3:.")],
    decoder: Annotated[str, typer.Option(metavar="FILE|URL", help="Likewise.")],
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Licence of the weights, shown in the page.")],
    sha256: Annotated[
        str,
        typer.Option(metavar="ENC,DEC", help="SHA-256 of both files; needed for https: and s3:.", show_default=False),
    ] = "",
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Keep the weights of a Segment Anything model in the store, for all gateways.

    ONNX only: export a checkpoint with samexporter. Nothing is ever downloaded but the URLs that you give.
    """
    hashes = _hashes(sha256)
    with Client(address) as client:
        made = client.add_prompter(name, encoder, decoder, licence=licence, sha256=hashes)
    Output(json).result(enum_names.plain(made), render.prompter_table([made]))


@app.command("list")
def list_(json: options.Json = False, address: options.Address = None) -> None:
    """List the models that were added, newest first."""
    with Client(address) as client:
        found = list(client.prompters())
    Output(json).result([enum_names.plain(each) for each in found], render.prompter_table(found))


@app.command()
def remove(name: Name, json: options.Json = False, address: options.Address = None) -> None:
    """Delete a model with its weights."""
    with Client(address) as client:
        client.remove_prompter(name)
    Output(json).result({"removed": name}, f"removed {name}")


def _hashes(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise InvalidArgument(f"--sha256 is {text!r}; allowed: the encoder's and the decoder's, with a comma between.")
    return parts[0], parts[1]
