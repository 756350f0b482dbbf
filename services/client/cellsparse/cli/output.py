"""Output of commands: results to stdout, all else to stderr; with --json, only JSON to stdout."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cellsparse.cli.text import printable

Update = Callable[[int, int], None]


WIDE = 250


def stdout_console() -> Console:
    """Return a console on stdout that wraps lines on terminals only."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


class Output:
    """The output of one command.

    Args:
        as_json: Whether --json was given.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = stdout_console()
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def result(self, document: Any, text: RenderableType) -> None:
        """Print a command's result: the document with --json, else the text."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
            sys.stdout.flush()
        else:
            shown = printable(text) if isinstance(text, str) else text
            self.console.print(shown, markup=False, soft_wrap=isinstance(text, str))

    def line(self, document: Any, text: str) -> None:
        """Print one entry of a stream, at once."""
        if self.as_json:
            text = json.dumps(document, allow_nan=False)
        sys.stdout.write(printable(text) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Print a remark to stderr."""
        self.errors.print(printable(text), markup=False)

    def warn(self, text: str) -> None:
        """Print a warning to stderr."""
        self.errors.print("[yellow]warning:[/]", end=" ")
        self.errors.print(printable(text), markup=False)

    def error(self, text: str) -> None:
        """Print an error to stderr."""
        self.errors.print("[bold red]error:[/]", end=" ")
        self.errors.print(printable(text), markup=False)

    @contextmanager
    def bar(self, label: str) -> Iterator[Update]:
        """Show a progress bar on stderr, if that is a terminal, and give a function (done, total) that moves it."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.errors, transient=True, disable=not self.errors.is_terminal) as progress:
            task = progress.add_task(label, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
