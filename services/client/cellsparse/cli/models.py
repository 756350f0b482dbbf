"""`cellsparse models ...`, `predict`, `evaluate` and `export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cellsparse import enum_names
from cellsparse.choices import parse_choice
from cellsparse.cli import options, render
from cellsparse.cli.exits import code_of
from cellsparse.cli.formats import Format
from cellsparse.cli.names import find_dataset, find_model
from cellsparse.cli.output import Output
from cellsparse.cli.predicted_parts import Parts
from cellsparse.cli.waking import telling_of_sleep
from cellsparse.client import Client
from cellsparse.errors import AlreadyExists, Internal, InvalidArgument
from cellsparse.models import LARGEST_MIN_PIXELS, MOST_PARALLEL, channel_texts
from cellsparse.sources import is_folder
from cellsparse.targets import check_folder, check_target, file_errors, make_folder
from cellsparse.vendor import is_vendor
from cellsparse_common.cpus import usable_cpus
from cellsparse_common.files import replace_file
from cellsparse_common.imaging.label_formats import file_name
from cellsparse_common.pairing.names import IMAGE_SUFFIXES, is_image_kind
from cellsparse_proto.v1 import trainer_pb2

if TYPE_CHECKING:
    from cellsparse_common.imaging.types import Labels

EXPORT_FORMATS = enum_names.names(trainer_pb2.ExportFormat.DESCRIPTOR)

app = typer.Typer(help="Trained models.", no_args_is_help=True)


@app.command("list")
def list_(
    backend: Annotated[str, typer.Option(help="Only this backend.")] = "",
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """List models, newest first."""
    with Client(address) as client:
        found = list(client.models(backend=backend))
    Output(json).result([enum_names.plain(model) for model in found], render.model_table(found))


@app.command()
def show(model: options.ModelName, json: options.Json = False, address: options.Address = None) -> None:
    """Show one model."""
    with Client(address) as client:
        found = find_model(client, model)
    Output(json).result(enum_names.plain(found), render.model_table([found]))


@app.command()
def delete(model: options.ModelName, json: options.Json = False, address: options.Address = None) -> None:
    """Delete a model that nothing needs."""
    with Client(address) as client:
        found = find_model(client, model)
        client.delete("model", found.id)
    text = f"deleted model {found.id} ({found.name}); `cellsparse undelete model {found.id}` brings it back"
    Output(json).result({"deleted": found.id}, text)


def predict(
    model: options.ModelName,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="TIFF, PNG, JPEG, OME-Zarr, CZI, LIF or ND2, or folders of images."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results; created if missing.")],
    kind: Annotated[
        Format,
        typer.Option(
            "--format",
            help="tiff: label images; geojson: for QuPath; roi: zips for ImageJ; ome-tiff; ome-zarr (0.5), "
            "ome-zarr-0.4: zips; coco; seg: for Cellpose's window.",
        ),
    ] = Format.TIFF,
    channel: Annotated[
        int | None,
        typer.Option(min=0, max=15, help="Image channel to use, from 0. [default: as the model was trained]"),
    ] = None,
    channels: options.Channels = "",
    min_pixels: Annotated[
        int, typer.Option(min=0, max=LARGEST_MIN_PIXELS, metavar="N", help="Remove cells of fewer pixels.")
    ] = 0,
    axes: options.Axes = "",
    series: options.Series = None,
    time: options.Time = "",
    z: options.Plane = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing results.")] = False,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Segment images, or stacks of planes, with a model.

    Writes DIR/NAME.tif (0 background, n cell n), NAME.geojson, NAME.zip, NAME.ome.tif, NAME.ome.zarr.zip, NAME.json or
    NAME_seg.npy for each. A folder stands for the images in it, without those of its subfolders. As many images are
    with the server at the same time as this computer has cores. An image that fails does not stop the others; the exit
    code is then that of the first failure.
    """
    output = Output(json)
    choice = parse_choice(series, time, z)
    images = _with_folders(images)
    parts = Parts(targets=_targets(images, out, kind, force), choice=choice, kind=kind, force=force)
    check_folder(out)
    done: list[dict[str, object]] = []
    failed = parts.failed
    with Client(address) as client, output.bar("predicting") as update:
        found = find_model(client, model)
        update(0, len(images))
        predictions = client.predict_many(
            found.id,
            parts.contents(client.connection.max_pixels, axes),
            channel=channel,
            channels=channel_texts(channels),
            min_pixels=min_pixels,
            format=kind.value,
            axes=axes if choice.everything else "",
            parallel=max(1, min(usable_cpus(), MOST_PARALLEL, len(images))),
        )
        with telling_of_sleep(client.connection, found.backend, output.note):
            for number, prediction in enumerate(predictions, 1):
                image, target = parts.places.popleft()
                if prediction.output is None or prediction.error is not None:
                    failed.append((image, prediction.error or Internal("The answer holds no segmentation.")))
                else:
                    make_folder(out)
                    _write(target, prediction.output, prediction.spacing)
                    done.append({"image": str(image), "label": str(target), "cells": prediction.cells})
                update(number, max(number, len(images)))
    failures = [{"image": str(image), "error": error.message} for image, error in failed]
    if done or json:
        text = "\n".join(f"{entry['label']}  {entry['cells']} cells" for entry in done)
        output.result({"model": found.id, "predictions": done, "failures": failures}, text)
    for image, error in failed:
        output.error(f"{image}: {error.message}")
    if failed:
        raise typer.Exit(code_of(failed[0][1]))


def evaluate(
    model: options.ModelName,
    dataset: options.DatasetName,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    against: Annotated[
        str, typer.Option(metavar="MODEL", help="Model to compare with, such as the initial model.", show_default=False)
    ] = "",
    iou: Annotated[
        list[float] | None, typer.Option(help="Threshold (again for more). [default: 0.5, 0.55, ... 0.9]")
    ] = None,
    channels: options.Channels = "",
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Score a model on one split of a dataset."""
    output = Output(json)
    with Client(address) as client, output.bar("evaluating") as update:
        found, truth = find_model(client, model), find_dataset(client, dataset)
        other = find_model(client, against) if against else None
        report, *rest = (
            client.evaluate(
                one.id,
                truth.id,
                split,
                ious=iou or (),
                channels=channel_texts(channels),
                on_progress=lambda answer: update(answer.items_done, answer.items_total),
            )
            for one in (found, other)
            if one is not None
        )
    document = {"model": found.id, "dataset": truth.id, "split": split, **enum_names.plain(report)}
    if other is None:
        output.result(document, render.score_table(report.scores))
    else:
        document["against"] = {"model": other.id, **enum_names.plain(rest[0])}
        output.result(document, render.score_comparison(found, report.scores, other, rest[0].scores))
    if report.sparse:
        output.note("scored on labelled pixels only: the labels are sparse")


def export(
    model: options.ModelName,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
    format_: Annotated[
        str,
        typer.Option("--format", help=f"{', '.join(EXPORT_FORMATS)}; not every backend has all of them."),
    ] = "native",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Write a model as a file for other tools.

    native is a zip of the stock tool's own files, saved_model a zip for StarDist in Fiji and QuPath, bioimageio a
    BioImage.IO package; torchscript and onnx hold the network.
    """
    output = Output(json)
    check_target(out, force)
    with Client(address) as client:
        found = find_model(client, model)
        with telling_of_sleep(client.connection, found.backend, output.note):
            header = client.export(found.id, format_, out, force=force)
    document = {
        "model": found.id,
        "format": format_.lower(),
        "file": str(out),
        "size": header.size,
        "sha256": header.sha256,
    }
    output.result(document, f"{out}  {header.size} bytes  sha256 {header.sha256}")


_OF_ZARR = ("zarr.json", ".zattrs", ".zgroup")
"""Files that make a folder an image."""


def _with_folders(paths: list[Path]) -> list[Path]:
    """Return the paths, each folder replaced by the images in it, in the order of their names.

    Raises:
        InvalidArgument: A folder has none, or cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        if not is_folder(path) or any((path / name).is_file() for name in _OF_ZARR):
            found.append(path)
            continue
        try:
            inside = sorted(
                each for each in path.iterdir() if (is_image_kind(each.name) or is_vendor(each)) and each.is_file()
            )
        except OSError as error:
            raise InvalidArgument(f"The folder {path} cannot be read: {error.strerror}.") from error
        if not inside:
            raise InvalidArgument(f"The folder {path} holds no image; allowed: {', '.join(IMAGE_SUFFIXES)}.")
        found += inside
    return found


def _targets(images: list[Path], out: Path, kind: str, force: bool) -> dict[Path, Path]:
    """Return where each image's result goes; checked before anything is computed."""
    targets: dict[Path, Path] = {}
    with file_errors("The images cannot be read"):
        sources = {image.resolve() for image in images}
    for image in images:
        target = out / file_name(kind, image.name, "")
        if target in targets.values():
            raise InvalidArgument(f"Two images would be written to {target}; predict them into different folders.")
        with file_errors(f"{target} cannot be written"):
            is_source, exists = target.resolve() in sources, target.exists()
        if is_source:
            raise InvalidArgument(f"{target} is one of the images; give another --out.")
        if exists and not force:
            raise AlreadyExists(f"{target} is there already; --force overwrites it.")
        targets[image] = target
    return targets


def _write(target: Path, result: "Labels | bytes", spacing: tuple[float, ...]) -> None:
    """Write a result completely or not at all."""
    if not isinstance(result, bytes):
        from cellsparse.arrays import prediction_file

        result = prediction_file(result, spacing)
    replace_file(target, result)
