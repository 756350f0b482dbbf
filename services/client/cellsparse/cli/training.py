"""`cellsparse sparsify` and `cellsparse train`."""

from typing import Annotated

import typer

from cellsparse import enum_names
from cellsparse.cli import options, render
from cellsparse.cli.follow import detach, follow
from cellsparse.cli.names import find_dataset, find_model
from cellsparse.cli.output import Output
from cellsparse.client import Client
from cellsparse.errors import InvalidArgument
from cellsparse.training_settings import backends
from cellsparse_proto.v1 import dataset_pb2


def sparsify(
    dataset: options.DatasetName,
    mode: Annotated[str, typer.Option(help="min, max, minmax (darkest and brightest) or random.")] = "minmax",
    k: Annotated[int | None, typer.Option(help="Per image: k of the mode, 2k cells in all.")] = None,
    total_cells: Annotated[int | None, typer.Option(help="Instead of --k: cells over all images together.")] = None,
    percent: Annotated[float | None, typer.Option(help="Instead of --k: percent of all cells together.")] = None,
    background: Annotated[str, typer.Option(help="none, shifted, ring or all.")] = "shifted",
    distance: Annotated[
        int | None, typer.Option(help="Pixels, for shifted and ring. [default: 10]", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of mode random.")] = 0,
    channel: Annotated[
        str,
        typer.Option(
            help="Channel that intensity is taken from: its number from 0 or its name. [default: the mean of all]",
            show_default=False,
        ),
    ] = "",
    splits: Annotated[str, typer.Option(help="Splits to sparsify; others are copied unchanged.")] = "train,val",
    name: Annotated[
        str, typer.Option(help="Name of the new dataset. [default: made from the source's]", show_default=False)
    ] = "",
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Create a dataset in which only a few cells are labelled."""
    output = Output(json)
    with Client(address) as client, output.bar("sparsifying") as update:
        warnings: list[str] = []

        def show(answer: dataset_pb2.CreateSparseDatasetResponse) -> None:
            update(answer.items_done, answer.items_total)
            warnings[:] = answer.warnings or warnings

        made = client.sparsify(
            find_dataset(client, dataset).id,
            mode=mode,
            k=k,
            total_cells=total_cells,
            percent=percent,
            background=background,
            distance=distance,
            seed=seed,
            channel=channel or None,
            splits=[split.strip() for split in splits.split(",") if split.strip()],
            name=name,
            on_progress=show,
        )
    for warning in warnings:
        output.warn(warning)
    output.result({**enum_names.plain(made), "warnings": warnings}, render.dataset_table([made]))


def train(
    dataset: options.DatasetName,
    backend: Annotated[str, typer.Option(help=f"{', '.join(backends())}.")] = "cellpose",
    preset: Annotated[str, typer.Option(help="fast (useful soonest, on a CPU too) or paper (Sugawara 2023).")] = "fast",
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Minutes that the training may take: as many steps as fit are done. [default: the preset's steps]",
            show_default=False,
        ),
    ] = None,
    channels: options.Channels = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other setting, such as steps=200. An unknown one lists all."
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="Start from the weights of this model, trained or imported.", show_default=False
        ),
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the run.", show_default=False)] = "",
    detach_now: Annotated[bool, typer.Option("--detach", help="Queue the run and return immediately.")] = False,
    max_attempts: Annotated[
        int | None, typer.Option(help="Most attempts, 1 to 10. [default: 3]", show_default=False)
    ] = None,
    priority: Annotated[int, typer.Option(help="Larger starts earlier, -100 to 100.")] = 0,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Train a model and watch the run. Ctrl-C stops watching, not the run.

    With --json: a line of type "run", then lines of type "event", then the ended run; with --detach one document.
    """
    output = Output(json)
    with Client(address) as client:
        source = find_dataset(client, dataset)
        chosen = parse_settings(settings or [])
        if start:
            chosen["initial_model"] = find_model(client, start).id
        if channels:
            chosen["channels"] = channels
        if minutes is not None:
            chosen["minutes"] = str(minutes)
        run = client.train(
            source.id,
            backend,
            name=name,
            max_attempts=max_attempts,
            priority=priority,
            **{"preset": preset, **chosen},
        )
        try:
            queued = run.info()
        except KeyboardInterrupt:
            detach(run.id, output)
        if detach_now:
            output.result(
                enum_names.plain(queued), f"run {run.id} is queued; `cellsparse runs watch {run.id}` to look at it"
            )
            return
        output.line({"type": "run", **enum_names.plain(queued)}, f"run {run.id} trains {backend} on {source.name}")
        follow(client, queued, output)


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """Return the settings given with --set, by name.

    Raises:
        InvalidArgument: One is not KEY=VALUE.
    """
    chosen: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key.strip() and equals):
            raise InvalidArgument(f"--set is {pair!r}; expected KEY=VALUE, such as --set steps=200.")
        chosen[key.strip()] = value.strip()
    return chosen
