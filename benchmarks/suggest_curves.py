"""The curves of `suggest.py`: F1 by cells, the cells that reach a share of the dense labels' F1, and the area."""

import math
import statistics
from itertools import pairwise
from typing import Any

IOUS = (0.5, 0.7, 0.8, 0.9)
SHARES = (0.9, 0.95)
"""Shares of the dense labels' F1 at 0.5 that a method should reach."""


def f1(counts: dict[str, Any]) -> float:
    """Return F1 of counts."""
    tp, wrong = counts["tp"], counts["fp"] + counts["fn"]
    return 2 * tp / (2 * tp + wrong) if tp else 0.0


def shown(result: dict[str, Any]) -> str:
    """Return a result in a few words."""
    scores = ", ".join(f"F1@{each['iou']} {f1(each):.3f}" for each in result["counts"])
    return f"{scores}, {result['cells']} cells, {result['clicks']} clicks" if "cells" in result else scores


def needed(points: list[tuple[int, float]], wanted: float) -> float | None:
    """Return the cells at which a curve first reaches a score, between budgets by the logarithm; None: it does not.

    Args:
        points: Budgets, ascending, with their scores.
        wanted: The score.
    """
    for index, (cells, score) in enumerate(points):
        if score < wanted:
            continue
        if not index:
            return float(cells)
        fewer, lower = points[index - 1]
        part = (wanted - lower) / (score - lower) if score > lower else 1.0
        return float(2 ** (math.log2(fewer) + part * (math.log2(cells) - math.log2(fewer))))
    return None


def area(points: list[tuple[int, float]]) -> float:
    """Return the mean score over the logarithm of the budget."""
    if len(points) < 2:
        return points[0][1] if points else 0.0
    steps = list(pairwise(points))
    widths = [math.log2(after) - math.log2(before) for (before, _), (after, _) in steps]
    sums = [(one + two) / 2 * width for ((_, one), (_, two)), width in zip(steps, widths, strict=True)]
    return sum(sums) / sum(widths)


def curves(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return by backend the dense score, and by method its curve with a band, and what it needs."""
    report: dict[str, Any] = {"ious": IOUS, "backends": {}}
    for backend in dict.fromkeys(result["job"]["backend"] for result in results):
        mine = [result for result in results if result["job"]["backend"] == backend]
        dense = [f1(result["counts"][0]) for result in mine if result["job"]["method"] == "dense"]
        entry: dict[str, Any] = {"dense_f1": statistics.fmean(dense) if dense else None, "methods": {}}
        for method in dict.fromkeys(result["job"]["method"] for result in mine):
            if method != "dense":
                found = [result for result in mine if result["job"]["method"] == method]
                entry["methods"][method] = _method(found, entry["dense_f1"])
        report["backends"][backend] = entry
    return report


def _method(results: list[dict[str, Any]], dense: float | None) -> dict[str, Any]:
    budgets = sorted({result["job"]["budget"] for result in results})
    seeds = sorted({result["job"]["seed"] for result in results})
    points = []
    for budget in budgets:
        group = [result for result in results if result["job"]["budget"] == budget]
        point: dict[str, Any] = {"budget": budget, "seeds": len(group)}
        point["cells"] = statistics.fmean(result["cells"] for result in group)
        point["clicks"] = statistics.fmean(result["clicks"] for result in group)
        for place, iou in enumerate(IOUS):
            scores = [f1(result["counts"][place]) for result in group]
            point[f"f1_{iou}"] = {"mean": statistics.fmean(scores), "least": min(scores), "greatest": max(scores)}
        points.append(point)
    lines = [
        [(each["job"]["budget"], f1(each["counts"][0])) for each in results if each["job"]["seed"] == seed]
        for seed in seeds
    ]
    answer: dict[str, Any] = {"points": points, "area": statistics.fmean(area(sorted(line)) for line in lines)}
    for share in SHARES:
        cells = [needed(sorted(line), share * dense) if dense else None for line in lines]
        # A seed that never reaches it needs more than any other.
        ordered = sorted(math.inf if each is None else each for each in cells)
        middle = statistics.median_low(ordered)
        answer[f"cells_to_{share}"] = None if math.isinf(middle) else middle
    return answer


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = ["# Which cells next?", "", report["scope"], f"Code: {', '.join(report['commits'])}.", ""]
    for backend, entry in report["backends"].items():
        dense = entry["dense_f1"]
        lines += [f"## {backend}", "", f"Dense labels: F1@0.5 {dense:.3f}." if dense else "Dense labels: not measured."]
        budgets = sorted({point["budget"] for each in entry["methods"].values() for point in each["points"]})
        titles = ["method", *(f"{budget} cells" for budget in budgets), "area", "cells to 90 %", "95 %", "clicks"]
        lines += ["", "| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
        for method, each in entry["methods"].items():
            by_budget = {point["budget"]: point for point in each["points"]}
            cells = [_score(by_budget.get(budget)) for budget in budgets]
            reached = [_cells(each[f"cells_to_{share}"]) for share in SHARES]
            clicks = f"{each['points'][-1]['clicks']:.0f}"
            lines.append("| " + " | ".join([method, *cells, f"{each['area']:.3f}", *reached, clicks]) + " |")
        lines.append("")
    lines.append("F1 at IoU 0.5: mean, in brackets least to greatest over the seeds; clicks at the last budget.")
    return "\n".join(lines) + "\n"


def _score(point: dict[str, Any] | None) -> str:
    if point is None:
        return ""
    score = point["f1_0.5"]
    band = f" ({score['least']:.2f} to {score['greatest']:.2f})" if point["seeds"] > 1 else ""
    return f"{score['mean']:.3f}{band}"


def _cells(cells: float | None) -> str:
    return "not reached" if cells is None else f"{cells:.0f}"
