"""`cellsparse study ...`: run, list, show, watch, pause, resume, cancel, delete, report."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from cellsparse import enum_names, training_settings
from cellsparse.cli import options, render_studies
from cellsparse.cli.exits import Exit
from cellsparse.cli.follow import Lost
from cellsparse.cli.names import find_dataset, find_study
from cellsparse.cli.output import Output
from cellsparse.client import Client
from cellsparse.errors import InvalidArgument, RunFailedError
from cellsparse.study_report import can_plot
from cellsparse_proto.v1 import study_pb2

app = typer.Typer(
    help="Studies: many runs at once, over label sets, backends, settings and seeds.", no_args_is_help=True
)
ENDED = frozenset({study_pb2.MEMBER_STATE_SUCCEEDED, study_pb2.MEMBER_STATE_FAILED, study_pb2.MEMBER_STATE_CANCELLED})
_USUAL = ", ".join(training_settings.usual_backends())


@app.command()
def run(
    dataset: options.DatasetName,
    preset: Annotated[
        str,
        typer.Option(help="paper: 3 modes x 2 backgrounds x 6 k x 3 backends, where not given.", show_default=False),
    ] = "",
    modes: Annotated[str, typer.Option(metavar="A,B", help="Of min, max, minmax, random.", show_default=False)] = "",
    backgrounds: Annotated[
        str, typer.Option(metavar="A,B", help="Of none, shifted, ring, all.", show_default=False)
    ] = "",
    k: Annotated[
        str, typer.Option(metavar="1,4,all", help="Cells per image of the mode; all: every cell.", show_default=False)
    ] = "",
    backends: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help=f"Of {', '.join(training_settings.backends())}. [default: {_USUAL}]",
            show_default=False,
        ),
    ] = "",
    seeds: Annotated[
        str,
        typer.Option(metavar="0,1,2", help="Seeds of training and of mode random. [default: 0]", show_default=False),
    ] = "",
    distance: Annotated[
        int | None, typer.Option(help="Pixels, for shifted and ring. [default: 10]", show_default=False)
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=A,B,C",
            help="Values of a training setting, such as steps=100,200 or unet.steps=50; where one value holds commas, "
            "values are separated by semicolons, and a single one ends with one.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split whose dense labels score the models: test or val.")] = "test",
    name: Annotated[str, typer.Option(help="Name of the study.", show_default=False)] = "",
    detach_now: Annotated[bool, typer.Option("--detach", help="Start the study and return immediately.")] = False,
    max_attempts: Annotated[
        int | None, typer.Option(help="Most attempts of each run, 1 to 10. [default: 3]", show_default=False)
    ] = None,
    priority: Annotated[int, typer.Option(help="Of the runs; larger starts earlier, -100 to 100.")] = 0,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Start a study of a densely labelled dataset and watch it. Ctrl-C stops watching, not the study.

    Without modes, backgrounds and k all members train on the labels of the dataset as they are.
    """
    output = Output(json)
    with Client(address) as client:
        chosen = _listed(backends) or ([] if preset else training_settings.usual_backends())
        study = client.study(
            find_dataset(client, dataset).id,
            preset=preset,
            modes=_listed(modes),
            backgrounds=_listed(backgrounds),
            k=_listed(k),
            backends=chosen,
            seeds=_listed(seeds),
            distance=distance,
            settings=_axes(given or []),
            split=split,
            name=name,
            max_attempts=max_attempts,
            priority=priority,
        )
        begun = study.info()
        if detach_now:
            text = f"study {begun.id} has {begun.members} members; `cellsparse study watch {begun.id}` to look at it"
            output.result(enum_names.plain(begun), text)
            return
        output.line({"type": "study", **enum_names.plain(begun)}, f"study {begun.id} has {begun.members} members")
        _follow(client, begun, output)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="Most studies to list.")] = 50,
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """List studies, newest first."""
    with Client(address) as client:
        found = list(islice(client.studies(), limit))
    Output(json).result([enum_names.plain(study) for study in found], render_studies.study_table(found))


@app.command()
def show(study: options.StudyName, json: options.Json = False, address: options.Address = None) -> None:
    """Show one study and its members."""
    with Client(address) as client:
        found = find_study(client, study)
        members = list(client.study_members(found.id))
    document = {**enum_names.plain(found), "member_list": [enum_names.plain(member) for member in members]}
    Output(json).result(document, render_studies.study_details(found, members))


@app.command()
def watch(study: options.StudyName, json: options.Json = False, address: options.Address = None) -> None:
    """Watch a study until it has ended. Ctrl-C stops watching, not the study.

    With --json: lines of type "member" for members that have changed, then the ended study as a line of type "study".
    """
    with Client(address) as client:
        _follow(client, find_study(client, study), Output(json))


@app.command()
def pause(study: options.StudyName, json: options.Json = False, address: options.Address = None) -> None:
    """Start no more members. Those that are training continue and are scored."""
    with Client(address) as client:
        found = client.pause_study(find_study(client, study).id)
    Output(json).result(enum_names.plain(found), _standing(found))


@app.command()
def resume(study: options.StudyName, json: options.Json = False, address: options.Address = None) -> None:
    """Resume a paused study."""
    with Client(address) as client:
        found = client.resume_study(find_study(client, study).id)
    Output(json).result(enum_names.plain(found), _standing(found))


@app.command()
def cancel(study: options.StudyName, json: options.Json = False, address: options.Address = None) -> None:
    """Cancel all members of a study that have not ended."""
    with Client(address) as client:
        found = client.cancel_study(find_study(client, study).id)
    Output(json).result(enum_names.plain(found), _standing(found))


@app.command()
def delete(study: options.StudyName, json: options.Json = False, address: options.Address = None) -> None:
    """Delete a study that has ended, and its report. Its runs, models and label sets remain."""
    with Client(address) as client:
        found = find_study(client, study)
        client.delete_study(found.id)
    text = f"deleted study {found.id} ({found.name}); `cellsparse undelete study {found.id}` brings it back"
    Output(json).result({"deleted": found.id}, text)


@app.command()
def report(
    study: options.StudyName,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for report.json, members.csv and plots.")],
    json: options.Json = False,
    address: options.Address = None,
) -> None:
    """Write the report of a study, also while it runs: table, scores, best models, cost, and the paper's plots."""
    output = Output(json)
    with Client(address) as client:
        found = client.study_report(find_study(client, study).id)
    written = found.write(out)
    if not found.complete:
        output.warn("the study has not ended; the report covers the results so far")
    best = found.document["best"]["overall"]
    if not can_plot():
        output.warn("plots need matplotlib, which is not installed; `pip install 'cellsparse[plots]'` installs it")
    lines = [f"wrote {out / 'report.json'}, members.csv and {len(written) - 2} plots"]
    if best:
        lines.append(f"best model {best['model_id']}: {best['backend']}, F1 {best['f1']:.3f} at IoU {best['iou']:g}")
    lines.append(render_studies.cost_line(found.document["cost"]))
    document = {"written": [str(path) for path in written], "complete": found.complete, "best": best}
    output.result({**document, "cost": found.document["cost"]}, "\n".join(lines))


def _follow(client: Client, study: study_pb2.Study, output: Output) -> None:
    """Print every member as it ends, until the study has ended.

    Raises:
        RunFailedError: It ended without any scores, or was cancelled.
        typer.Exit: Ctrl-C.
    """
    lost = Lost(output.errors)
    last = study
    try:
        with output.bar(study.name) as update:
            for change in client.watch_study(study.id, on_lost=lost.say, on_back=lost.over):
                last = change.study
                for member in change.members:
                    if output.as_json or member.state in ENDED:
                        text = render_studies.member_line(last, member)
                        output.line({"type": "member", **enum_names.plain(member)}, text)
                update(last.succeeded + last.failed + last.cancelled, last.members)
    except KeyboardInterrupt:
        output.note(
            f"\nstudy {study.id} goes on; `cellsparse study watch {study.id}` to look again; "
            f"`cellsparse study cancel {study.id}` to stop it"
        )
        raise typer.Exit(Exit.DETACHED) from None
    output.line({"type": "study", **enum_names.plain(last)}, _standing(last))
    if last.state != study_pb2.STUDY_STATE_SUCCEEDED:
        raise RunFailedError(_standing(last))


def _standing(study: study_pb2.Study) -> str:
    return f"study {study.id} {enum_names.name(study_pb2.StudyState.DESCRIPTOR, study.state)}: {study.message}"


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _axes(pairs: Iterable[str]) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        values = [part.strip() for part in value.split(";" if ";" in value else ",") if part.strip()]
        if not (key.strip() and equals and values):
            raise InvalidArgument(f"--set is {pair!r}; expected KEY=A,B,C, such as --set steps=100,200.")
        axes[key.strip()] = values
    return axes
