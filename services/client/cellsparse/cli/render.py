"""Tables and lines for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cellsparse import enum_names
from cellsparse.suggestions import Suggestions
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, prompter_pb2, sparsifier_pb2, trainer_pb2

_ITEMS_SHOWN = 50

COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "retrying": "yellow"}


def status_table(status: orchestrator_pb2.GetStatusResponse) -> RenderableType:
    """Return the services, and one line about the rest."""
    table = new_table("SERVICE", "ADDRESS", "HEALTH", "PID", "NOTE")
    for service in status.services:
        health = Text("healthy", "green") if service.healthy else Text("not healthy", "red")
        if service.healthy and service.asleep:
            health = Text("waking up" if service.waking else "asleep", "yellow")
        table.add_row(service.name, service.address, health, str(service.pid or ""), service.message)
    absent = [Text(f"not there: {service.message}", "yellow") for service in status.absent]
    waiting = [Text(f"no run begins: {status.waiting}", "yellow")] if status.waiting else []
    return Group(table, *absent, *waiting, Text(f"{status.active_runs} active runs, store {status.store_url}"))


def dataset_table(datasets: Iterable[dataset_pb2.Dataset]) -> Table:
    """Return one row per dataset."""
    table = new_table("ID", "NAME", "ITEMS", "TRAIN/VAL/TEST", "CELLS", "LABELLED", "LABELS", "MADE")
    for entry in datasets:
        splits = f"{entry.train_items}/{entry.val_items}/{entry.test_items}"
        share = f"{100 * entry.labelled_pixels / entry.pixels:.1f} %" if entry.pixels else ""
        labels = labels_text(entry)
        table.add_row(
            entry.id, entry.name, str(entry.items), splits, str(entry.cells), share, labels, when(entry.created_at)
        )
    return table


def dataset_details(dataset: dataset_pb2.Dataset, items: Sequence[dataset_pb2.DatasetItem]) -> RenderableType:
    """Return one dataset and its items."""
    table = new_table("ITEM", "SPLIT", "SIZE", "AXES", "SPACING (\u00b5m)", "TYPE", "CELLS", "LABELLED PIXELS")
    for item in items:
        split = enum_names.name(common_pb2.Split.DESCRIPTOR, item.split)
        size = " x ".join(map(str, item.shape))
        spacing = " x ".join(f"{length:g}" for length in item.spacing) or "not known"
        counts = str(item.cells), str(item.labelled_pixels)
        table.add_row(item.name, split, size, item.axes, spacing, item.dtype, *counts)
    return Group(dataset_table([dataset]), Text(""), table)


def import_report(dataset: dataset_pb2.Dataset, report: dataset_pb2.UploadReport) -> RenderableType:
    """Return a new dataset and what was read of each item; of many items only of the first ones."""
    table = new_table("ITEM", "SPLIT", "CELLS", "BACKGROUND", "NOT LABELLED", "IGNORED SHAPES")
    for item in report.items[:_ITEMS_SHOWN]:
        split = enum_names.name(common_pb2.Split.DESCRIPTOR, item.split)
        pixels = (f"{item.background_pixels:,} px", f"{item.unlabelled_pixels:,} px")
        table.add_row(item.item, split, str(item.cells), *pixels, str(item.ignored_shapes))
    more = len(report.items) - _ITEMS_SHOWN
    rest = [Text(f"and {more:,} more items; --json lists them")] if more > 0 else []
    return Group(dataset_table([dataset]), Text(""), table, *rest)


def prompter_table(prompters: Iterable[prompter_pb2.Prompter]) -> Table:
    """Return one row per prompter."""
    table = new_table("NAME", "LICENCE", "ENCODER", "DECODER", "MADE")
    for entry in prompters:
        sizes = (f"{file.size / 2**20:.1f} MiB" for file in (entry.encoder, entry.decoder))
        table.add_row(entry.name, entry.licence, *sizes, when(entry.created_at))
    return table


def suggestion_table(answer: Suggestions, names: Mapping[str, str]) -> RenderableType:
    """Return one row per suggestion, with the names of the images by id."""
    table = new_table("", "IMAGE", "KIND", "CENTRE", "SIZE", "WHY")
    for number, each in enumerate(answer.suggestions, start=1):
        centre = f"{each.x + each.width // 2}, {each.y + each.height // 2}"
        centre += "" if each.plane is None else f", plane {each.plane}"
        size = f"{each.width} x {each.height}"
        table.add_row(str(number), names.get(each.image_id, each.image_id), each.kind, centre, size, each.reason)
    model = f", predicted by {', '.join(answer.models)}" if answer.models else ""
    looked = f"{answer.candidates} candidates in {answer.images} images, chosen by {answer.method}{model}"
    return Group(table, Text(looked))


def labels_text(dataset: dataset_pb2.Dataset) -> str:
    """Return in a few words how a dataset is labelled: "minmax k=4, shifted d=10", or "as uploaded"."""
    if not dataset.HasField("sparsify"):
        return "as uploaded"
    settings = dataset.sparsify
    mode = enum_names.name(sparsifier_pb2.SelectionMode.DESCRIPTOR, settings.mode)
    rule = enum_names.name(sparsifier_pb2.BackgroundRule.DESCRIPTOR, settings.background)
    amount = settings.WhichOneof("amount")
    shown = {
        "k": f"k={settings.k}",
        "total_cells": f"{settings.total_cells} cells",
        "total_percent": f"{settings.total_percent:g} %",
    }.get(str(amount), "")
    distance = settings.background_distance if settings.HasField("background_distance") else 10
    return f"{mode} {shown}, {rule}" + (f" d={distance}" if rule in ("shifted", "ring") else "")


def run_table(runs: Iterable[orchestrator_pb2.Run]) -> Table:
    """Return one row per run."""
    table = new_table("ID", "NAME", "BACKEND", "STATE", "STEP", "LOSS", "SCORE", "TIME", "MADE")
    for run in runs:
        progress = run.progress
        steps = f"{progress.step}/{progress.total_steps}" if progress.total_steps else ""
        loss, score = number(progress.losses.get("loss")), number(progress.validation.get("score"))
        state = state_text(run.state)
        table.add_row(run.id, run.name, run.backend, state, steps, loss, score, run_time(run), when(run.created_at))
    return table


def run_details(run: orchestrator_pb2.Run) -> RenderableType:
    """Return one run, a line per fact."""
    table = Table.grid(padding=(0, 2))
    facts: list[tuple[str, RenderableType]] = [
        ("id", run.id),
        ("name", run.name),
        ("backend", run.backend),
        ("dataset", run.dataset_id),
        ("state", state_text(run.state)),
        ("attempts", f"{run.attempts} of at most {run.max_attempts}{_nodes(run)}"),
        ("made", when(run.created_at)),
        ("training time", run_time(run)),
        ("message", run.message),
    ]
    if run.progress.total_steps:
        facts.append(("progress", progress_text(run.progress)))
    if run.queue_position:
        facts.append(("queue position", str(run.queue_position)))
    shown = enum_names.plain(run.settings)
    own = shown.pop(run.backend, None) or {}
    facts.append(("settings", ", ".join(f"{name}={value}" for name, value in {**shown, **own}.items() if value != "")))
    for name, value in facts:
        if value:
            table.add_row(Text(name, "dim"), value)
    return table


def _nodes(run: orchestrator_pb2.Run) -> str:
    """Say how many nodes the newest attempt has, where the run asked for more than one."""
    asked = run.settings.nodes
    return f", the newest on {run.nodes} of {asked} nodes" if run.nodes and asked > 1 else ""


def model_table(models: Iterable[orchestrator_pb2.Model]) -> Table:
    """Return one row per model."""
    table = new_table("ID", "NAME", "BACKEND", "DATASET", "STEP", "SCORE", "START", "MADE")
    for model in models:
        score, start = (number(scores.get("score")) for scores in (model.validation, model.start_validation))
        made = when(model.created_at)
        table.add_row(model.id, model.name, model.backend, model.dataset_id, str(model.step), score, start, made)
    return table


def score_table(scores: Iterable[common_pb2.MatchingScore]) -> Table:
    """Return one row per IoU threshold."""
    table = new_table("IOU", "TP", "FP", "FN", "PRECISION", "RECALL", "F1", "AP", "PQ")
    for row in scores:
        counts = (str(row.tp), str(row.fp), str(row.fn))
        shares = (f"{value:.3f}" for value in (row.precision, row.recall, row.f1, row.ap, row.pq))
        table.add_row(f"{row.iou:.2f}", *counts, *shares)
    return table


def score_comparison(
    model: orchestrator_pb2.Model,
    scores: Sequence[common_pb2.MatchingScore],
    other: orchestrator_pb2.Model,
    others: Sequence[common_pb2.MatchingScore],
) -> RenderableType:
    """Return the scores of two models, and a sentence that says which is better at the first threshold."""
    ours, theirs = scores[0].f1, others[0].f1
    compared = "better" if ours > theirs else "no better"
    sentence = f"F1 at IoU {scores[0].iou:.2f} is {ours:.3f}, that of {other.id} {theirs:.3f}: {compared}."
    titles = (Text(f"{entry.id}  {entry.name}", "dim") for entry in (model, other))
    return Group(next(titles), score_table(scores), next(titles), score_table(others), Text(sentence))


def event_text(event: orchestrator_pb2.RunEvent) -> str:
    """Return an event as one plain line."""
    parts = [clock(event.time), enum_names.name(common_pb2.RunState.DESCRIPTOR, event.state)]
    if event.HasField("training") and event.training.total_steps:
        parts.append(progress_text(event.training))
    message = event.message or event.training.message
    return "  ".join([*parts, message] if message else parts)


def progress_text(event: trainer_pb2.TrainingEvent) -> str:
    """Return step, loss, validation score, speed and time left, as far as known."""
    parts = [f"step {event.step}/{event.total_steps}"]
    if "loss" in event.losses:
        parts.append(f"loss {number(event.losses['loss'])}")
    if "score" in event.validation:
        parts.append(f"score {number(event.validation['score'])}")
    if event.images_per_second:
        parts.append(f"{event.images_per_second:.1f} images/s")
    if event.eta_seconds:
        parts.append(f"ETA {duration(event.eta_seconds)}")
    return "  ".join(parts)


def state_text(state: int) -> Text:
    """Return a run state in its colour."""
    shown = enum_names.name(common_pb2.RunState.DESCRIPTOR, state)
    return Text(shown, COLOURS.get(shown, ""))


def run_time(run: orchestrator_pb2.Run) -> str:
    """Return how long a run has trained."""
    if not run.HasField("started_at"):
        return ""
    end = run.ended_at.ToDatetime(UTC) if run.HasField("ended_at") else datetime.now(UTC)
    return duration((end - run.started_at.ToDatetime(UTC)).total_seconds())


def number(value: float | None) -> str:
    """Return a loss or score with four digits."""
    return "" if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return seconds as "1:05" or "2:03:04"."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def when(time: Timestamp) -> str:
    """Return a point in time in the local time zone, to the minute."""
    return time.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M") if time.seconds else ""


def clock(time: Timestamp) -> str:
    """Return the local time of day."""
    return time.ToDatetime(UTC).astimezone().strftime("%H:%M:%S")


def new_table(*names: str) -> Table:
    """Return an empty table with these columns."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, no_wrap=name not in ("NOTE", "NAME", "LABELS"), overflow="fold")
    return table
