"""`cellsparse admin backup` and `restore`: they work on database and store, not through the orchestrator."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from cellsparse.cli.exits import Exit
from cellsparse.errors import InvalidArgument
from cellsparse.home import home_dir

COMMAND = [sys.executable, "-m", "cellsparse_orchestrator"]
Place = Annotated[
    str,
    typer.Argument(
        metavar="PLACE",
        help="Folder, or s3://bucket/prefix. [default: CELLSPARSE_BACKUP_STORE_URL]",
        show_default=False,
    ),
]


def backup(
    place: Place = "",
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Newest snapshots that stay; others are removed.", show_default="all"),
    ] = None,
    keep_days: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Days whose snapshots stay; likewise.", show_default="all"),
    ] = None,
) -> None:
    """Back up database and store of the home folder, or those that the environment names.

    Services may go on meanwhile. What the backup holds already is not copied again. With --keep and --keep-days a
    snapshot stays that one of them keeps; the newest stays in any case.
    """
    rules = {"--keep": keep, "--keep-days": keep_days}
    more = [word for name, value in rules.items() if value is not None for word in (name, str(value))]
    _run("backup", "--to", place, *more)


def restore(
    place: Place = "",
    snapshot: Annotated[
        str, typer.Option(metavar="ID", help="Which snapshot.", show_default="the newest that is complete")
    ] = "",
) -> None:
    """Restore a backup into an empty home folder, or the empty database and store that the environment names.

    Services must not run. A backup that is torn or rotten is refused, and nothing is written.
    """
    _run("restore", "--from", place, *(["--snapshot", snapshot] if snapshot else []))


def _run(command: str, option: str, place: str, *more: str) -> None:
    if place and "://" not in place:
        place = Path(place).expanduser().absolute().as_uri()
    environment = {**os.environ, "CELLSPARSE_HOME": str(home_dir()), "CELLSPARSE_LOG_LEVEL": "WARNING"}
    try:
        done = subprocess.run([*COMMAND, command, option, place, *more], env=environment, check=False)
    except OSError as error:
        raise InvalidArgument(f"{COMMAND[0]} cannot be started: {error.strerror}.") from error
    if done.returncode:
        raise typer.Exit(Exit.RUN_FAILED)
