"""Plot the figures of `make bench-simulate` over the number of nodes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, IDEAL, THIRD = "#0072b2", "#555555", "#d55e00"
_SIZE = (10.0, 6.0)
Point = dict[str, Any]


def write_plots(document: dict[str, Any], folder: Path) -> Path:
    """Write the curves of a report as one SVG; return its path."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    panels = figure.subplots(2, 3)
    points = document["points"]
    for axes, draw in zip(panels.flat, (_queue, _begin, _lag, _events, _database, _process), strict=True):
        draw(axes, points)
        axes.set(xlabel="nodes", xlim=(0, None), ylim=(0, None))
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "curves.svg"
    # The same figures give the same file: no date, no random ids.
    with rc_context({"svg.hashsalt": "cellsparse", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    return path


def _line(axes: Axes, points: Sequence[Point], read: Callable[[Point], Any], label: str, **style: Any) -> None:
    axes.plot([point["nodes"] for point in points], [read(point) for point in points], marker="o", label=label, **style)


def _queue(axes: Axes, points: Sequence[Point]) -> None:
    for part, style in (("median", "-"), ("p99", "--")):
        _line(axes, points, lambda point, part=part: point["queue"]["seconds"][part], part, color=OURS, ls=style)
        _line(
            axes,
            points,
            lambda point, part=part: point["queue"]["ideal_seconds"][part],
            f"{part}, ideal",
            color=IDEAL,
            ls=style,
        )
    axes.set(title="wait for the first attempt", ylabel="seconds")


def _begin(axes: Axes, points: Sequence[Point]) -> None:
    for part, style in (("median", "-"), ("p99", "--")):
        _line(axes, points, lambda point, part=part: point["begin_latency_seconds"][part], part, color=OURS, ls=style)
    axes.set(title="GPU idle while others wait", ylabel="seconds between trainings")


def _lag(axes: Axes, points: Sequence[Point]) -> None:
    for part, style in (("median", "-"), ("p99", "--")):
        _line(axes, points, lambda point, part=part: point["event_lag_seconds"][part], part, color=OURS, ls=style)
    axes.set(title="a trainer's event until stored", ylabel="seconds")


def _events(axes: Axes, points: Sequence[Point]) -> None:
    _line(axes, points, lambda point: point["busy"]["events_per_second"], "events", color=OURS)
    _line(axes, points, lambda point: point["busy"]["transactions_per_second"], "transactions", color=THIRD)
    axes.set(title="stored", ylabel="per second")


def _database(axes: Axes, points: Sequence[Point]) -> None:
    _line(axes, points, lambda point: point["busy"]["look_ms"], "one look at all runs", color=OURS)
    _line(axes, points, lambda point: point["busy"]["lock_wait_ms"], "wait of a writer", color=THIRD)
    axes.set(title="reconciler and database", ylabel="milliseconds, mean")


def _process(axes: Axes, points: Sequence[Point]) -> None:
    _line(axes, points, lambda point: 100 * point["busy"]["cores"], "% of a core", color=OURS)
    _line(axes, points, lambda point: point["busy"]["rss_mib"], "memory, MiB", color=THIRD)
    _line(axes, points, lambda point: point["busy"]["threads"] / 10, "threads / 10", color=IDEAL)
    axes.set(title="the orchestrator's process")
