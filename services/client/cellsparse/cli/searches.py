"""`cellsparse search ...`: run, list, report."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cellsparse import search
from cellsparse.cli import options, render_searches
from cellsparse.cli.exits import Exit
from cellsparse.cli.follow import Lost
from cellsparse.cli.names import find_dataset, find_model
from cellsparse.cli.output import Output
from cellsparse.cli.training import parse_settings
from cellsparse.client import Client
from cellsparse.errors import CellsparseError, InvalidArgument, RunFailedError
from cellsparse.search.folder import folder_of
from cellsparse.search.plan import DEFAULT_TRIALS, METRICS, PRUNERS
from cellsparse.search.space import parse_pairs
from cellsparse.search.trial_store import load_optuna
from cellsparse.training_settings import backends

app = typer.Typer(help="Searches for good training settings; needs cellsparse[search].", no_args_is_help=True)


@app.command()
def run(
    dataset: Annotated[
        str, typer.Argument(metavar="[DATASET]", help="Id, beginning of an id, or name; not with --resume.")
    ] = "",
    backend: Annotated[str, typer.Option(help=f"{', '.join(backends())}.")] = "cellpose",
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="What to search (again for more): learning_rate=1e-5..1e-2:log, steps=100..500, batch_size=2,4,8 or "
            "unet.base_channels=16,32; values that contain commas are separated by semicolons.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help=f"Trials in all. [default: {DEFAULT_TRIALS}]", show_default=False)
    ] = None,
    metric: Annotated[str, typer.Option(help=f"Validation score to raise: {', '.join(METRICS)}.")] = "score",
    pruner: Annotated[
        str, typer.Option(help=f"Cancels runs whose validations are poor: {', '.join(PRUNERS)}.")
    ] = "median",
    at_once: Annotated[
        int, typer.Option(help="Parallel trials, 1 to 64. With fewer, later trials learn from more results.")
    ] = 1,
    name: Annotated[str, typer.Option(help="Name of the search. [default: DATASET-BACKEND]", show_default=False)] = "",
    seed: Annotated[int, typer.Option(help="Seed of the choices; that of training is --set seed=.")] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume the search --name; only --trials and --at-once may differ."),
    ] = False,
    preset: Annotated[str, typer.Option(help="fast (useful soonest, on a CPU too) or paper (Sugawara 2023).")] = "fast",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting of all trials, such as steps=200."),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="Start from the weights of this model, trained or imported.", show_default=False
        ),
    ] = "",
    max_attempts: Annotated[
        int | None, typer.Option(help="Most attempts of each run, 1 to 10. [default: 3]", show_default=False)
    ] = None,
    priority: Annotated[int, typer.Option(help="Of the runs; larger starts earlier, -100 to 100.")] = 0,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Search for the settings that train the best model, one run per trial.

    Ctrl-C, or a kill, stops only the search. Its runs continue, and the same command resumes it.

    With --json: a line of type "trial" when one starts or ends, then the report as a line of type "search".
    """
    output = Output(json)
    _quiet()
    with Client(address) as client:
        if resume:
            if not name or dataset or over:
                raise InvalidArgument(
                    "--resume continues a search as it was started: give --name, but neither DATASET nor --over."
                )
            plan = search.load_plan(name)
            plan = plan.with_trials(trials if trials is not None else plan.trials)
        else:
            if not dataset:
                raise InvalidArgument("Give the DATASET to train on, or --resume with the --name of a search.")
            source = find_dataset(client, dataset)
            chosen = parse_settings(settings or [])
            axes = {axis.name: axis.text() for axis in parse_pairs(backend, over or [])}
            if start:
                chosen["initial_model"] = find_model(client, start).id
            if "preset" not in axes:
                chosen = {"preset": preset, **chosen}
            plan = search.make_plan(
                name or _folder_name(f"{source.name}-{backend}"),
                source.id,
                backend,
                over=axes,
                settings=chosen,
                trials=DEFAULT_TRIALS if trials is None else trials,
                metric=metric,
                pruner=pruner,
                seed=seed,
                max_attempts=max_attempts,
                priority=priority,
            )
        _drive(client, plan, at_once, output)


@app.command("list")
def list_(json: options.Json = False) -> None:
    """List the searches in the home folder of this machine."""
    plans = [search.load_plan(name) for name in search.names()]
    Output(json).result([plan.plain() for plan in plans], render_searches.plan_table(plans))


@app.command()
def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the search.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for report.json and trials.csv. [default: the search's own]"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show and write the report of a search, also while it runs: table, best settings and model."""
    output = Output(json)
    _quiet()
    found = search.report(name)
    written = found.write(out or folder_of(name))
    if not found.complete:
        output.warn("the search has not ended; the report covers the results so far")
    document = {"written": [str(path) for path in written], "complete": found.complete, **found.document}
    output.result(document, render_searches.report_view(found))


def _drive(client: Client, plan: search.SearchPlan, at_once: int, output: Output) -> None:
    """Run a search and print every trial that starts or ends, then the report.

    Raises:
        RunFailedError: No trial has a model.
        typer.Exit: Ctrl-C or SIGTERM.
    """
    lost = Lost(output.errors)

    def show(row: search.TrialRow) -> None:
        output.line({"type": "trial", **search.row_document(row)}, render_searches.trial_line(plan, row))

    def waits(error: CellsparseError) -> None:
        output.errors.print(f"A trial waits: {error.message}", markup=False, soft_wrap=True)

    listener = search.Listener(on_trial=show, on_lost=lost.say, on_back=lost.over, on_wait=waits)
    try:
        with _terminable():
            found = search.run(client, plan, at_once=at_once, listener=listener)
    except KeyboardInterrupt:
        output.note(
            f"\nthe runs of search {plan.name} go on; `cellsparse search run --resume --name {plan.name}` goes on with "
            "them; `cellsparse runs cancel RUN` stops one"
        )
        raise typer.Exit(Exit.DETACHED) from None
    if output.as_json:
        output.line({"type": "search", "complete": found.complete, **found.document}, "")
    else:
        output.result(None, render_searches.report_view(found))
    output.note(f"wrote report.json and trials.csv to {folder_of(plan.name)}")
    if found.document["best"] is None:
        raise RunFailedError(f"No trial of search {plan.name} has a model; its report says why.")


def _quiet() -> None:
    """Silence Optuna, whose messages would repeat those of this command; raises FailedPrecondition without it."""
    logging = load_optuna().logging
    logging.set_verbosity(logging.WARNING)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM stop the search as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _folder_name(text: str) -> str:
    """Return a name that `make_plan` takes, made from a dataset's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:64]
