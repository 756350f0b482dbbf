"""Exit codes, and errors as one sentence on stderr."""

from enum import IntEnum

import grpc
from rich.console import Console

from cellsparse.cli.text import printable
from cellsparse.errors import Busy, CellsparseError, RunFailedError


class Exit(IntEnum):
    """Exit codes of the command."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    SERVER = 5
    REFUSED = 6
    DETACHED = 130


HELP = (
    "Exit codes: 0 ok, 1 the run failed or was cancelled, or a scrub found damage, 2 usage or invalid input, 3 not "
    "found, 4 a service is not available, 5 another error of the server, 6 not "
    "allowed, 130 detached or interrupted by Ctrl-C."
)

_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
    grpc.StatusCode.ALREADY_EXISTS: Exit.USAGE,
    grpc.StatusCode.FAILED_PRECONDITION: Exit.USAGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exit.USAGE,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE: Exit.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED: Exit.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.REFUSED,
}


def code_of(error: CellsparseError) -> Exit:
    """Return the exit code that an error ends with."""
    if isinstance(error, Busy):
        return Exit.UNAVAILABLE
    return Exit.RUN_FAILED if isinstance(error, RunFailedError) else _BY_STATUS.get(error.status, Exit.SERVER)


def report(error: CellsparseError) -> Exit:
    """Print an error to stderr, with the fields at fault where the sentence does not name them, and return its code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/]", end=" ")
    console.print(printable(error.message), markup=False)
    for field, description in error.violations:
        if description not in error.message:
            console.print(printable(f"  {field}: {description}"), markup=False)
    return code_of(error)
