"""The command line: all commands, and the exit code."""

import os
import sys

import typer

from cellsparse.cli import (
    admin,
    backups,
    cluster,
    datasets,
    deletion,
    local_services,
    model_import,
    models,
    options,
    prompters,
    runs,
    searches,
    studies,
    suggestions,
    tokens,
    training,
)
from cellsparse.cli.exits import HELP, Exit, report
from cellsparse.cli.text import guard, refuse_nul
from cellsparse.errors import CellsparseError, Internal, InvalidArgument
from cellsparse.security import CA_VARIABLE
from cellsparse.tokens import FILE_VARIABLE

DEBUG_VARIABLE = "CELLSPARSE_DEBUG"


def build() -> typer.Typer:
    """Return the command line."""
    app = typer.Typer(
        name="cellsparse",
        help="Cellsparse: segmentation models from a few labelled cells.",
        epilog=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    app.command()(local_services.up)
    app.command("open")(local_services.open_)
    app.command()(local_services.down)
    app.command()(local_services.status)
    app.add_typer(datasets.app, name="dataset")
    app.command()(training.sparsify)
    app.command()(training.train)
    app.command()(suggestions.suggest)
    app.add_typer(runs.app, name="runs")
    app.add_typer(studies.app, name="study")
    app.add_typer(searches.app, name="search")
    models.app.command("import")(model_import.import_)
    app.add_typer(models.app, name="models")
    app.command()(models.predict)
    app.command()(models.evaluate)
    app.command()(models.export)
    app.add_typer(prompters.app, name="prompter")
    app.command()(deletion.deleted)
    app.command()(deletion.undelete)
    app.command()(tokens.login)
    app.command()(tokens.logout)
    app.add_typer(tokens.app, name="token")
    admin.app.command()(deletion.collect)
    admin.app.command()(backups.backup)
    admin.app.command()(backups.restore)
    app.add_typer(admin.app, name="admin")
    app.add_typer(cluster.app, name="cluster")
    return app


def _common(ca: options.Authority = None, token_file: options.TokenFile = None) -> None:
    if ca:
        # For every client of this command, and for what `up` starts.
        os.environ[CA_VARIABLE] = ca
    if token_file:
        os.environ[FILE_VARIABLE] = token_file


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    command = typer.main.get_command(build())
    guard(command)
    try:
        refuse_nul(arguments)
        command(args=arguments, prog_name="cellsparse")
    except CellsparseError as error:
        return report(error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has closed its pipe
        return Exit.OK
    except KeyboardInterrupt:
        return Exit.DETACHED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.USAGE
    except Exception as error:  # a bug of ours, or a machine without room: one sentence for all who cannot mend it
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return report(unexpected(error))
    return Exit.OK


def unexpected(error: Exception) -> CellsparseError:
    """Return what is said of an error that nobody foresaw."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return InvalidArgument(f"{where}{error.strerror or error}.")
    return Internal(
        f"An error of Cellsparse itself ({type(error).__name__}: {error}); {DEBUG_VARIABLE}=1 shows where, please "
        "report it."
    )
