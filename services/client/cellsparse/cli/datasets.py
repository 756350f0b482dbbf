"""`cellsparse dataset ...`: import, list, show, delete."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from cellsparse import enum_names
from cellsparse.choices import JPEG_WARNING, chosen_items, parse_choice
from cellsparse.cli import options, render
from cellsparse.cli.formats import Format
from cellsparse.cli.names import find_dataset
from cellsparse.cli.output import Output, Update
from cellsparse.client import Client
from cellsparse.errors import InvalidArgument
from cellsparse.folders import Pairs, parse_fractions, read_folder, read_pair_of_folders
from cellsparse.items import Item
from cellsparse.model_import import display_name
from cellsparse_proto.v1 import dataset_pb2

SHOWN = 20
"""Most files that are named one by one as left out."""

app = typer.Typer(help="Datasets: images with labels.", no_args_is_help=True)


@app.command("import")
def import_(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="images/ with masks/ or labels/, or images beside NAME_masks.tif; also in train/, val/, test/.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of images, instead of DIR.")] = None,
    masks: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of label files, with --images.")] = None,
    name: Annotated[str, typer.Option(help="Name of the dataset. [default: the folder's]", show_default=False)] = "",
    split: Annotated[
        str, typer.Option(metavar="TRAIN,VAL,TEST", help="Shares where the folder has no splits; the same every time.")
    ] = "0.6,0.2,0.2",
    label_kind: Annotated[
        str, typer.Option(help="instances (-1 not labelled, 0 background, n cell n), binary, or offset_by_one.")
    ] = "instances",
    axes: options.Axes = "",
    spacing: Annotated[
        str,
        typer.Option(
            metavar="Z,Y,X",
            help="Micrometres per pixel: 2,0.5,0.5 for stacks, Y,X for 2D. [default: from the files]",
            show_default=False,
        ),
    ] = "",
    series: options.Series = None,
    time: options.Time = "",
    z: options.Plane = None,
    channels: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            help="Names of the images' channels in their order. [default: from the files]",
            show_default=False,
        ),
    ] = "",
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Upload a folder of images and label files, paired by their names; all 2D, or all stacks of planes.

    Images: .tif, .png, .jpg, .zarr; with cellsparse[vendor] .czi, .lif, .nd2. Labels: integer .tif or .png, Cellpose
    _seg.npy, QuPath .geojson (also as .zip), ImageJ .roi or ROI .zip; 2D also COCO .json. With --time each time point
    becomes an item. All faults of the files are told at once; then nothing is kept.
    """
    output = Output(json)
    sizes, choice = _spacing(spacing), parse_choice(series, time, z)
    names = tuple(name.strip() for name in channels.split(",")) if channels else ()
    pairs, called = _read(folder, images, masks, parse_fractions(split))
    for path, reason in islice(pairs.left_out.items(), SHOWN):
        output.warn(f"{path} is left out: it {reason}")
    if len(pairs.left_out) > SHOWN:
        output.warn(f"{len(pairs.left_out) - SHOWN} more files are left out; --json lists them")
    for image in (str(item.image) for item in pairs.items if not isinstance(item.image, bytes)):
        if image.lower().endswith((".jpg", ".jpeg")):
            output.warn(f"{image} {JPEG_WARNING}")
    with Client(address) as client, output.bar("uploading") as update:
        given = (replace(item, axes=axes, spacing=sizes, channels=names) for item in _counted(pairs.items, update))
        items = given if choice.everything else chosen_items(given, choice, client.connection.max_pixels)
        reports: list[dataset_pb2.UploadReport] = []
        dataset = client.create_dataset(name or called, items, label_kind, on_report=reports.append)
    for item in islice((item for item in reports[0].items if item.notes), SHOWN):
        for note in item.notes:
            output.warn(f"{item.item}: {note}")
    left_out = [{"file": str(path), "reason": reason} for path, reason in pairs.left_out.items()]
    document = {"unmatched": [entry["file"] for entry in left_out], "left_out": left_out}
    document["report"] = enum_names.plain(reports[0])
    output.result({**enum_names.plain(dataset), **document}, render.import_report(dataset, reports[0]))


@app.command("list")
def list_(json: options.Json = False, address: options.Address = None) -> None:
    """List datasets, newest first."""
    with Client(address) as client:
        found = list(client.datasets())
    Output(json).result([enum_names.plain(entry) for entry in found], render.dataset_table(found))


@app.command()
def show(dataset: options.DatasetName, json: options.Json = False, address: options.Address = None) -> None:
    """Show one dataset and its items."""
    with Client(address) as client:
        found = find_dataset(client, dataset)
        items = list(client.dataset_items(found.id))
    document = {**enum_names.plain(found), "item_list": [enum_names.plain(item) for item in items]}
    Output(json).result(document, render.dataset_details(found, items))


@app.command("export")
def export_(
    dataset: options.DatasetName,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")],
    kind: Annotated[Format, typer.Option("--format", help="File format of the labels.")] = Format.TIFF,
    split: Annotated[
        list[str] | None, typer.Option(help="train, val or test (again for more). [default: all]", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Write a dataset as a folder of images and label files, which `dataset import` reads again.

    The folder holds train/images/NAME.tif, train/masks/NAME.tif and so on; seg writes NAME_seg.npy beside the image.
    What is not labelled stays so in every format. geojson, roi and coco number cells anew; coco holds 2D images only.
    """
    output = Output(json)
    with Client(address) as client, output.bar("writing") as update:
        found = find_dataset(client, dataset)
        written = client.export_dataset(
            found.id, out, format=kind.value, splits=split or (), force=force, on_progress=update
        )
    document = {
        "dataset": found.id,
        "format": kind.value,
        "items": [
            {"item": each.name, "split": each.split, "image": str(each.image), "label": str(each.label)}
            for each in written
        ],
    }
    output.result(document, f"{out}  {len(written)} items")


@app.command()
def delete(dataset: options.DatasetName, json: options.Json = False, address: options.Address = None) -> None:
    """Delete a dataset that no unfinished run needs."""
    with Client(address) as client:
        found = find_dataset(client, dataset)
        client.delete_dataset(found.id)
    text = f"deleted dataset {found.id} ({found.name}); `cellsparse undelete dataset {found.id}` brings it back"
    Output(json).result({"deleted": found.id}, text)


def _read(
    folder: Path | None, images: Path | None, masks: Path | None, fractions: tuple[float, ...]
) -> tuple[Pairs, str]:
    if folder is not None and images is None and masks is None:
        return read_folder(folder, fractions), display_name(folder.absolute().name)
    if folder is None and images is not None and masks is not None:
        return read_pair_of_folders(images, masks, fractions), display_name(images.absolute().parent.name)
    raise InvalidArgument("Give either a folder, or --images together with --masks.")


def _spacing(text: str) -> tuple[float, ...]:
    try:
        sizes = tuple(float(part) for part in text.split(",") if text)
    except ValueError:
        sizes = (0.0,)
    if text and (len(sizes) not in (2, 3) or not all(0 < size <= 100_000 for size in sizes)):
        raise InvalidArgument(f"spacing is {text!r}; allowed: 2 or 3 numbers above 0 to 100,000, such as 2,0.5,0.5.")
    return sizes


def _counted(items: list[Item], update: Update) -> Iterator[Item]:
    for done, item in enumerate(items):
        update(done, len(items))
        yield item
