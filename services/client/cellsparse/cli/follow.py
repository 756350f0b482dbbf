"""Output while a run trains: a live bar on a terminal, plain lines elsewhere, JSON lines with --json."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from cellsparse import enum_names
from cellsparse.cli import render
from cellsparse.cli.exits import Exit
from cellsparse.cli.output import Output
from cellsparse.client import Client
from cellsparse.errors import CellsparseError, RunFailedError
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

QUIET_SECONDS = 5


def follow(client: Client, run: orchestrator_pb2.Run, output: Output, *, after: int = 0) -> orchestrator_pb2.Run:
    """Show a run until it has ended.

    Ctrl-C ends the command, not the run, and prints how to watch the run again.

    Returns:
        The run, SUCCEEDED.

    Raises:
        RunFailedError: It failed or was cancelled.
        Unavailable: The orchestrator went away and did not come back.
        typer.Exit: Ctrl-C.
    """
    try:
        if output.as_json:
            lost = Lost(output.errors)
            for event in client.watch(run.id, after, on_lost=lost.say, on_back=lost.over):
                output.line({"type": "event", **enum_names.plain(event)}, "")
        else:
            with RunView(output.console, run).shown() as view:
                for event in client.watch(run.id, after, on_lost=view.lost.say, on_back=view.lost.over):
                    view.show(event)
    except KeyboardInterrupt:
        detach(run.id, output)
    return ended(client.run(run.id), output)


def ended(run: orchestrator_pb2.Run, output: Output) -> orchestrator_pb2.Run:
    """Print how a run ended; return it if it has a model.

    Raises:
        RunFailedError: It has none.
    """
    state = enum_names.name(common_pb2.RunState.DESCRIPTOR, run.state)
    took = render.run_time(run)
    output.line({"type": "run", **enum_names.plain(run)}, f"run {run.id} {state}" + (f" after {took}" if took else ""))
    if run.state != common_pb2.RUN_STATE_SUCCEEDED:
        raise RunFailedError(f"Run {run.id} {state}" + (f": {run.message}" if run.message else "."))
    return run


def detach(run_id: str, output: Output) -> None:
    """Print that the run continues, and end the command."""
    output.note(
        f"\nrun {run_id} goes on; `cellsparse runs watch {run_id}` to look again; "
        f"`cellsparse runs cancel {run_id}` to stop it"
    )
    raise typer.Exit(Exit.DETACHED)


class Lost:
    """Reports an outage once, and its end once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._gone = False

    def say(self, error: CellsparseError, seconds_left: float) -> None:
        """Report a failed call."""
        if not self._gone:
            self._console.print(f"{error.message} Trying again for {seconds_left:.0f} s.", markup=False, soft_wrap=True)
        self._gone = True

    def over(self) -> None:
        """Report that the orchestrator responds again."""
        if self._gone:
            self._console.print("The orchestrator answers again.", markup=False)
        self._gone = False


class RunView:
    """A run as one bar on a terminal, elsewhere as a line for what is new, and for progress every few seconds."""

    def __init__(self, console: Console, run: orchestrator_pb2.Run, label: str = "") -> None:
        self._console = console
        self._label = label or run.name or run.id
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[state]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=console,
            disable=not self._live,
            expand=True,
        )
        self._task = TaskID(0)
        self._facts: dict[str, str] = {}
        self._state = -1
        self._printed = 0
        self.lost = Lost(self._progress.console)

    @contextmanager
    def shown(self) -> Iterator["RunView"]:
        """Show the bar while the context lasts."""
        with self._progress:
            self._task = self._progress.add_task(self._label, total=None, state="", facts="")
            yield self

    def show(self, event: orchestrator_pb2.RunEvent) -> None:
        """Show one event."""
        message = event.message or event.training.message
        training = event.training if event.HasField("training") else None
        if not self._live:
            news = event.state != self._state or message or (training is not None and training.validation)
            due = event.time.seconds >= self._printed + QUIET_SECONDS
            if news or (due and training is not None and training.losses):
                self._console.print(render.event_text(event), markup=False, soft_wrap=True)
                self._printed = event.time.seconds
            self._state = event.state
            return
        if message:
            self._console.print(f"{render.clock(event.time)}  {message}", markup=False, soft_wrap=True)
        state = enum_names.name(common_pb2.RunState.DESCRIPTOR, event.state)
        self._progress.update(self._task, state=f"[{render.COLOURS.get(state, 'default')}]{state}")
        if training is None or not training.total_steps:
            return
        if "loss" in training.losses:
            self._facts["loss"] = f"loss {render.number(training.losses['loss'])}"
        if "score" in training.validation:
            self._facts["score"] = f"score {render.number(training.validation['score'])}"
        if training.images_per_second:
            self._facts["speed"] = f"{training.images_per_second:.1f} images/s"
        self._facts["eta"] = f"ETA {render.duration(training.eta_seconds)}"
        self._progress.update(
            self._task,
            completed=training.step,
            total=training.total_steps,
            facts="  ".join(self._facts.get(name, "") for name in ("loss", "score", "speed", "eta")),
        )
