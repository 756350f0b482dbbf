"""The paper's plots of a study's report: scores and counts against the number of labelled cells."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cellsparse.study_grid import ALL

COLOURS = {"min": "#0072b2", "max": "#d55e00", "minmax": "#009e73", "random": "#cc79a7"}
STYLES = {"none": ("--", "o"), "shifted": ("-", "s"), "ring": ("-.", "^"), "all": (":", "D")}
FULL_COLOUR = "#555555"
SCORES = {"f1": "F1", "ap": "AP"}
COUNTS = {"tp": "true positives", "fp": "false positives", "fn": "false negatives"}
Curve = dict[str, Any]


def write_plots(folder: Path, document: dict[str, Any]) -> list[Path]:
    """Write the plots of a report as PNG and SVG; returns their paths.

    Scores: one panel per backend and background, one line per mode over k, a dashed line where all cells were kept;
    bars from the least to the most F1 of several seeds. Counts: one panel per backend and count, one line per mode and
    background, grey ones where all cells were kept. All at the lowest IoU threshold of the report. A study that varies
    settings gets one of each per combination of them.

    Args:
        folder: Where.
        document: The report.
    """
    curves = [curve for curve in document["curves"] if curve["mode"]]
    split = document["study"]["split"]
    written = []
    for settings, found in _by_settings(curves):
        figures = {name: _scores(found, name, split) for name in SCORES} | {"counts": _counts(found, split)}
        for name, figure in figures.items():
            if settings:
                figure.suptitle(settings, fontsize=9)
            for suffix in ("png", "svg"):
                path = folder / f"{name}{_slug(settings)}.{suffix}"
                figure.savefig(path)
                written.append(path)
    return written


def _scores(curves: Sequence[Curve], name: str, split: str) -> Figure:
    backends, backgrounds = _values(curves, "backend"), _values(curves, "background")
    figure, panels = _figure(len(backends), len(backgrounds))
    for row, backend in enumerate(backends):
        for column, background in enumerate(backgrounds):
            axes = panels[row][column]
            chosen = [curve for curve in curves if (curve["backend"], curve["background"]) == (backend, background)]
            for mode in _values(chosen, "mode"):
                _line(axes, [curve for curve in chosen if curve["mode"] == mode], name, mode, "-", "o")
            _full_line(axes, chosen, name)
            axes.set(title=f"{backend}, background {background}", ylim=(0, 1))
            axes.set(xlabel="k, cells of the mode per image", ylabel=f"{SCORES[name]} at IoU {_iou(curves)} ({split})")
    panels[0][0].legend(frameon=False, fontsize=8)
    return figure


def _counts(curves: Sequence[Curve], split: str) -> Figure:
    backends = _values(curves, "backend")
    figure, panels = _figure(len(backends), len(COUNTS))
    for row, backend in enumerate(backends):
        chosen = [curve for curve in curves if curve["backend"] == backend]
        for column, (name, words) in enumerate(COUNTS.items()):
            axes = panels[row][column]
            for mode in _values(chosen, "mode"):
                for background in _values(chosen, "background"):
                    line = [curve for curve in chosen if (curve["mode"], curve["background"]) == (mode, background)]
                    style, marker = STYLES.get(background, ("-", "o"))
                    _line(axes, line, name, f"{mode}, {background}", style, marker)
            for background in _values(chosen, "background"):
                kept = [curve for curve in chosen if curve["background"] == background]
                _full_line(axes, kept, name, f"all cells, {background}", STYLES.get(background, ("-", ""))[0])
            axes.set(title=backend, xlabel="k, cells of the mode per image")
            axes.set(ylabel=f"{words} at IoU {_iou(curves)} ({split})")
            axes.set_ylim(bottom=0)
    panels[0][0].legend(frameon=False, fontsize=7)
    return figure


def _line(axes: Axes, curves: Iterable[Curve], name: str, label: str, style: str, marker: str) -> None:
    """Draw one line over k; where all cells were kept there is no k."""
    points = sorted((curve["k"], curve["scores"][0]) for curve in curves if curve["k"] != ALL)
    if not points:
        return
    ks, scores = [k for k, _ in points], [score for _, score in points]
    values = [score[name] for score in scores]
    colour = COLOURS.get(label.partition(",")[0], "black")
    axes.plot(ks, values, style, marker=marker, color=colour, label=label, markersize=4)
    if name == "f1" and any(score["f1_most"] > score["f1_least"] for score in scores):
        axes.vlines(ks, [score["f1_least"] for score in scores], [score["f1_most"] for score in scores], color=colour)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()


def _full_line(axes: Axes, curves: Iterable[Curve], name: str, label: str = "all cells", style: str = "--") -> None:
    full = [curve["scores"][0][name] for curve in curves if curve["k"] == ALL]
    if full:  # the modes keep the same cells: what differs between them is chance
        axes.axhline(sum(full) / len(full), linestyle=style, color=FULL_COLOUR, label=label)


def _figure(rows: int, columns: int) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), dpi=120, layout="constrained")
    panels: Sequence[Sequence[Axes]] = figure.subplots(rows, columns, squeeze=False).tolist()
    for axes in (axes for row in panels for axes in row):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure, panels


def _by_settings(curves: Iterable[Curve]) -> list[tuple[str, list[Curve]]]:
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        settings = ", ".join(f"{name}={value}" for name, value in curve["settings"].items())
        groups.setdefault(settings, []).append(curve)
    return list(groups.items())


def _slug(settings: str) -> str:
    return f"-{re.sub('[^A-Za-z0-9.=]+', '_', settings)[:80]}" if settings else ""


def _values(curves: Iterable[Curve], name: str) -> list[str]:
    return list(dict.fromkeys(curve[name] for curve in curves))


def _iou(curves: Sequence[Curve]) -> str:
    return f"{curves[0]['scores'][0]['iou']:g}"
