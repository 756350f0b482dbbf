"""`cellsparse models ...`, `predict`, `evaluate` and `export`."""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from cellsparse import words
from cellsparse.cli import options, render
from cellsparse.cli.names import find_dataset, find_model
from cellsparse.cli.output import Output
from cellsparse.client import Client
from cellsparse.errors import AlreadyExists, InvalidArgument
from cellsparse.exports import check_target
from cellsparse_common.images import encode_tiff
from cellsparse_proto.v1 import trainer_pb2

FORMATS = words.words(trainer_pb2.ExportFormat.DESCRIPTOR)

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
    Output(json).result([words.plain(model) for model in found], render.model_table(found))


@app.command()
def show(model: options.ModelName, json: options.Json = False, address: options.Address = None) -> None:
    """Show one model."""
    with Client(address) as client:
        found = find_model(client, model)
    Output(json).result(words.plain(found), render.model_table([found]))


def predict(
    model: options.ModelName,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="TIFF or PNG files.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the label images; made if missing.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite label images that are there.")] = False,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Segment images with a model.

    Writes DIR/NAME.tif for each: 0 background, n cell n.
    """
    output = Output(json)
    targets = _targets(images, out, force)
    done: list[dict[str, object]] = []
    with Client(address) as client, output.bar("predicting") as update:
        found = find_model(client, model)
        for image, target in targets.items():
            update(len(done), len(targets))
            label = client.predict(found.id, image)
            _write(target, label)
            done.append({"image": str(image), "label": str(target), "cells": int(np.unique(label[label > 0]).size)})
    text = "\n".join(f"{entry['label']}  {entry['cells']} cells" for entry in done)
    output.result({"model": found.id, "predictions": done}, text)


def evaluate(
    model: options.ModelName,
    dataset: options.DatasetName,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    iou: Annotated[
        list[float] | None, typer.Option(help="Threshold (again for more). [default: 0.5, 0.55, ... 0.9]")
    ] = None,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Score a model on one split of a dataset."""
    output = Output(json)
    with Client(address) as client, output.bar("evaluating") as update:
        found, truth = find_model(client, model), find_dataset(client, dataset)
        report = client.evaluate(
            found.id,
            truth.id,
            split,
            ious=iou or (),
            on_progress=lambda answer: update(answer.items_done, answer.items_total),
        )
    document = {"model": found.id, "dataset": truth.id, "split": split, **words.plain(report)}
    output.result(document, render.score_table(report.scores))
    if report.sparse:
        output.note("scored on labelled pixels only: the labels are sparse")


def export(
    model: options.ModelName,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
    format_: Annotated[
        str,
        typer.Option("--format", help=f"{', '.join(FORMATS)}; each backend has some of them."),
    ] = "native",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Write a model as a file for other tools.

    native is a zip of the stock tool's own files, saved_model a zip for StarDist in Fiji and QuPath, bioimageio a
    BioImage.IO package; torchscript and onnx hold the network.
    """
    check_target(out, force)
    with Client(address) as client:
        found = find_model(client, model)
        header = client.export(found.id, format_, out, force=force)
    document = {
        "model": found.id,
        "format": format_.lower(),
        "file": str(out),
        "size": header.size,
        "sha256": header.sha256,
    }
    Output(json).result(document, f"{out}  {header.size} bytes  sha256 {header.sha256}")


def _targets(images: list[Path], out: Path, force: bool) -> dict[Path, Path]:
    """Return where each image's labels go; checked before anything is computed."""
    targets: dict[Path, Path] = {}
    sources = {image.resolve() for image in images}
    for image in images:
        target = out / f"{image.stem}.tif"
        if not image.is_file():
            raise InvalidArgument(f"{image} is not a file.")
        if target in targets.values():
            raise InvalidArgument(f"Two images would be written to {target}; predict them into different folders.")
        if target.resolve() in sources:
            raise InvalidArgument(f"{target} is one of the images; give another --out.")
        if target.exists() and not force:
            raise AlreadyExists(f"{target} is there already; --force overwrites it.")
        targets[image] = target
    return targets


def _write(target: Path, label: npt.NDArray[np.int32]) -> None:
    """Write a label image whole or not at all; uint16 where it fits, as most tools expect."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    staging.write_bytes(encode_tiff(label.astype(np.uint16) if label.max(initial=0) < 2**16 else label))
    staging.replace(target)
