"""`cellsparse suggest`."""

from dataclasses import asdict
from typing import Annotated

import typer

from cellsparse import suggestions
from cellsparse.cli import options, render
from cellsparse.cli.names import find_dataset, find_model, find_project
from cellsparse.cli.output import Output
from cellsparse.client import Client


def suggest(
    project: Annotated[
        str, typer.Argument(metavar="[PROJECT]", help="Id, beginning of an id, or name.", show_default=False)
    ] = "",
    dataset: Annotated[
        str,
        typer.Option(
            metavar="DATASET",
            help="Look at the training items of this dataset, in place of a project.",
            show_default=False,
        ),
    ] = "",
    count: Annotated[int, typer.Option(help="Most cells, at most 3 of an image, or of a stack's plane.")] = 8,
    method: Annotated[str, typer.Option(help=f"One of: {', '.join(suggestions.methods())}.")] = "auto",
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Model that predicts; may be repeated. [default: the project's or dataset's newest]",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(help="Most images to look at. [default: 64, with a model 32]", show_default=False)
    ] = 0,
    backgrounds: Annotated[
        int | None,
        typer.Option(help="Most spots of background. [default: one for every four cells]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which images are looked at.")] = 0,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Say which cells of a project or a dataset to mark next, and why.

    Open a project in the page and press Tab there: each suggestion is drawn, to be accepted or corrected.
    """
    output = Output(json)
    with Client(address) as client:
        project_id = find_project(client, project).id if project else ""
        dataset_id = find_dataset(client, dataset).id if dataset else ""
        models = [find_model(client, text).id for text in model or ()]
        answer = client.suggest(
            project_id,
            count=count,
            dataset=dataset_id,
            method=method,
            models=models,
            max_images=images,
            backgrounds=backgrounds,
            seed=seed,
        )
        names = {image.id: image.name for image in client.project_images(project_id)} if project_id else {}
    shown = []
    for each in answer.suggestions:
        image = names.get(each.image_id, each.image_id if dataset_id else "")
        shown.append({"image": image, **{key: value for key, value in asdict(each).items() if key != "data"}})
    document = {
        **({"project": project_id} if project_id else {"dataset": dataset_id}),
        "method": answer.method,
        "models": answer.models,
        "images": answer.images,
        "candidates": answer.candidates,
        "suggestions": shown,
    }
    output.result(document, render.suggestion_table(answer, names))
