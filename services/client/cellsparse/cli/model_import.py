"""`cellsparse models import`."""

from pathlib import Path
from typing import Annotated

import typer

from cellsparse import enum_names
from cellsparse.cli import options, render
from cellsparse.cli.output import Output
from cellsparse.client import Client
from cellsparse.errors import InvalidArgument
from cellsparse.training_settings import backends, terms_of_weights


def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Model file, model folder, or zip of one.")],
    backend: Annotated[str, typer.Option(help=f"{', '.join(backends())}.")],
    name: Annotated[str, typer.Option(help="Name of the model. [default: the file's]", show_default=False)] = "",
    channel: Annotated[
        int | None, typer.Option(min=0, max=15, help="Image channel to use, from 0. [default: the mean of all]")
    ] = None,
    channels: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Numbers of the image channels that a network of several gets, from 0, in its order. "
            "[default: the first ones]",
            show_default=False,
        ),
    ] = "",
    lower_percentile: Annotated[
        float | None, typer.Option(help="Percentile of the image that becomes 0. [default: as the stock tool does]")
    ] = None,
    upper_percentile: Annotated[
        float | None, typer.Option(help="Percentile of the image that becomes 1. [default: as the stock tool does]")
    ] = None,
    diameter: Annotated[
        float | None, typer.Option(help="Cellpose: mean diameter of your cells in pixels. [default: the file's]")
    ] = None,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Import a model file of a stock tool, for prediction or as the start of a training (train --start).

    PATH is a Cellpose 3 model file, a Cellpose-SAM model file, a StarDist model folder, a state dict of ELEPHANT's
    U-Net, or a native file from `cellsparse export`.
    """
    with Client(address) as client:
        made = client.import_model(
            path,
            backend,
            name=name,
            channel=channel,
            channels=_numbers(channels),
            lower_percentile=lower_percentile,
            upper_percentile=upper_percentile,
            diameter=diameter,
        )
    output = Output(json)
    output.result(enum_names.plain(made), render.model_table([made]))
    if terms := terms_of_weights(backend):
        output.note(terms)


def _numbers(text: str) -> list[int] | None:
    try:
        return [int(part) for part in text.split(",")] if text else None
    except ValueError:
        raise InvalidArgument(f"--channels is {text!r}; allowed: whole numbers from 0, such as 0,1.") from None
