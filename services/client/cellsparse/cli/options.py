"""Options and arguments that several commands share."""

from typing import Annotated, TypeAlias

import typer

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON only: one document, or one line each for streams.")
]
Address: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Orchestrator to use. [default: CELLSPARSE_ADDRESS, else what `cellsparse up` started]",
    ),
]
DatasetName: TypeAlias = Annotated[str, typer.Argument(metavar="DATASET", help="Id, beginning of an id, or name.")]
RunName: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help="Id, beginning of an id, or name.")]
ModelName: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="Id, beginning of an id, or name of the run that trained it.")
]
