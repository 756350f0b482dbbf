"""Compute the report's figures from the messages of the benchmark's processes: pure functions."""

import statistics
from collections.abc import Sequence
from typing import Any

GOAL = 0.70
"""The F1 at `IOU` that a model should reach."""
IOU = 0.5
PATIENCE = 10.0
"""PAPER is stopped once it has trained this many times as long as FAST took."""

Message = dict[str, Any]


def step_figures(ours: Sequence[Message], stock: Sequence[Message]) -> dict[str, float]:
    """Compare two implementations that took turns.

    Args:
        ours: Messages with "seconds" of each step and mean "cpu_seconds" of a step, one per turn.
        stock: The same of the stock implementation.

    Returns:
        Medians of the seconds per step and their ratio, and the ratio of processor times, which other work on the
        machine affects less.
    """
    mine, theirs = (statistics.median(value for one in side for value in one["seconds"]) for side in (ours, stock))
    cpu = [statistics.median(one["cpu_seconds"] for one in side) for side in (ours, stock)]
    return {"ratio": mine / theirs, "cpu_ratio": cpu[0] / cpu[1], "seconds": mine, "stock_seconds": theirs}


def seconds_to_goal(curve: Sequence[Message]) -> float | None:
    """Return the training seconds until the F1 of all validation images was `GOAL`; None if it never was."""
    return next((one["seconds"] for one in curve if (one["f1_all"] or 0.0) >= GOAL), None)


def allowance(fast_seconds: float | None, most: float, *, full: bool) -> float:
    """Return how many seconds PAPER may train: `PATIENCE` times what FAST took unless `full`, and at most `most`."""
    return most if full or fast_seconds is None else min(most, PATIENCE * fast_seconds)


def race_figures(fast: Sequence[Message], paper: Sequence[Message], most: float) -> dict[str, Any]:
    """Compare the times until the goal.

    Args:
        fast: FAST's evaluations, in order: "seconds" trained, "f1" and, where all images were scored, "f1_all".
        paper: PAPER's evaluations until it was stopped.
        most: Seconds counted for a PAPER run that trained for this long without reaching the goal.

    Returns:
        Times (None if not reached) and their ratio (None if FAST did not reach the goal). If PAPER was stopped before
        `most`, the ratio is an upper bound and marked as one.
    """
    mine, theirs = seconds_to_goal(fast), seconds_to_goal(paper)
    stopped = None if theirs is not None or not paper else min(paper[-1]["seconds"], most)
    ended = stopped is not None and paper[-1]["step"] == paper[-1]["steps"]  # no step is left
    counted = theirs if theirs is not None else (most if ended else stopped)
    return {
        "fast_to_paper_time_ratio": mine / counted if mine is not None and counted else None,
        "fast_to_paper_is_upper_bound": bool(stopped is not None and not ended and stopped < most),
        "seconds_to_f1_0.70": mine,
        "paper_seconds_to_f1_0.70": theirs,
        "paper_stopped_at_seconds": stopped,
    }


def growth(few: Message, many: Message) -> float:
    """Return the MiB of peak memory that each further image costs."""
    return (many["peak_memory_mib"] - few["peak_memory_mib"]) / (many["images"] - few["images"])
