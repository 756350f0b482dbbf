"""Curves: scores against the IoU threshold, loss and validation score against the step."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cellsparse.demo.results import Result
from cellsparse_proto.v1 import common_pb2

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def write_plots(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Write scores.png and curves.png; returns their paths."""
    return [_scores(folder / "scores.png", results), _curves(folder / "curves.png", results)]


def _scores(path: Path, results: Sequence[Result]) -> Path:
    figure, (left, right) = _figure()
    for axes, name in ((left, "F1"), (right, "AP")):
        for colour, result in zip(COLOURS, results, strict=False):
            rows = result.report.scores
            values = [row.f1 if name == "F1" else row.ap for row in rows]
            axes.plot([row.iou for row in rows], values, "o-", color=colour, label=result.run.backend)
        axes.set(xlabel="IoU threshold", ylabel=f"{name} on the test tiles", ylim=(0, 1))
    left.legend(frameon=False)
    figure.savefig(path)
    return path


def _curves(path: Path, results: Sequence[Result]) -> Path:
    figure, (left, right) = _figure()
    for colour, result in zip(COLOURS, results, strict=False):
        # The last event names the score of the best step, which need not be the last one.
        events = [event for event in result.events if event.state != common_pb2.RUN_STATE_SUCCEEDED]
        losses = [(event.step, event.losses["loss"]) for event in events if "loss" in event.losses]
        scores = [(event.step, event.validation["score"]) for event in events if "score" in event.validation]
        for axes, points, style in ((left, losses, "-"), (right, scores, "o-")):
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, style, color=colour, label=result.run.backend, markersize=4)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    right.set(xlabel="step", ylabel="validation score, labelled pixels", ylim=(0, 1))
    left.legend(frameon=False)
    figure.savefig(path)
    return path


def _figure() -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(10, 3.8), dpi=120, layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
    return figure, axes
