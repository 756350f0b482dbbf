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
Authority: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Speak TLS: PEM file of the authorities that sign the orchestrator's certificate, or `system` for public "
        "ones; comes before the command. [default: CELLSPARSE_TLS_CA, else no TLS]",
    ),
]
TokenFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File with the token that the orchestrator asks for; comes before the command. [default: "
        "CELLSPARSE_TOKEN_FILE, CELLSPARSE_TOKEN, else what `cellsparse login` keeps]",
    ),
]
Axes: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="ZYX",
        help="Axes of the images, if not in the files: YX, YXC, CYX, ZYX, ZYXC, ZCYX or CZYX (Z planes, C channels).",
        show_default=False,
    ),
]
Series: TypeAlias = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Which image of files that hold several, from 0.", show_default=False),
]
Time: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="T",
        help="Time points of TIFF files, from 0: one such as 3, or a range such as 0:10.",
        show_default=False,
    ),
]
Plane: TypeAlias = Annotated[
    int | None, typer.Option("--z", min=0, metavar="N", help="Which plane of stacks, from 0.", show_default=False)
]
DatasetName: TypeAlias = Annotated[str, typer.Argument(metavar="DATASET", help="Id, beginning of an id, or name.")]
RunName: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help="Id, beginning of an id, or name.")]
ModelName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Id, beginning of an id, or name: that of the run that trained it, or of its import."
    ),
]
StudyName: TypeAlias = Annotated[str, typer.Argument(metavar="STUDY", help="Id, beginning of an id, or name.")]

Channels = Annotated[
    str,
    typer.Option(
        metavar="A,B",
        help="Image channels that the network gets, in its order: numbers from 0 or names, or mean (of all).",
        show_default=False,
    ),
]
