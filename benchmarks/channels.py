"""Train on 24 labelled cells with one channel and with all of them; write out/bench/channels.json and print a table.

Usage: python benchmarks/channels.py [--seeds N] [--steps N] [--only NAME]

Two generated families show what single channels do not. `touching`: cells fill groups without gaps between them, as in
a dense culture; the second channel shows a nucleus in each. Cellpose sees the first channel, or both. `stained`: blue
nuclei and red droplets of equal size and of equal mean brightness on pink tissue, as with H&E; StarDist sees the mean
of red, green and blue, or all three. Each training gets 24 labelled cells and as many pixels of background (MINMAX,
k = 2, shifted, in 6 images of 160 x 160 pixels) and `fast`, and is scored on 6 other images with all their labels.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nuclei import ROOT, Picture, Task, commit, count, fit, read_task, run_child
from scipy import ndimage

from cellsparse_common.scoring.matching import scores
from cellsparse_trainer.training.channel_choice import COLOUR_SHIFT

SIDE, IMAGES = 160, 6
IOUS = (0.5, 0.7)
MARGIN = 0.25
"""By so much the F1 at IoU 0.5 must be better with all channels; else the exit code is 1."""
RADIUS = 9.0
"""Pixels, of a nucleus or droplet; a touching cell is about twice as wide."""


def places(rng: np.random.Generator, number: int, distance: float) -> np.ndarray:
    """Return up to `number` points, shape (n, 2), that are a distance apart."""
    found: list[np.ndarray] = []
    for point in rng.uniform(RADIUS, SIDE - RADIUS, (40 * number, 2)):
        if len(found) < number and all(np.hypot(*(point - other)) >= distance for other in found):
            found.append(point)
    return np.array(found)


def distances(points: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel to each point, shape (n, SIDE, SIDE)."""
    rows, columns = np.indices((SIDE, SIDE))
    return np.hypot(rows - points[:, 0, None, None], columns - points[:, 1, None, None])


def seen(rng: np.random.Generator, clean: np.ndarray, noise: float) -> np.ndarray:
    """Return an image as a camera has it: blurred and noisy, uint8."""
    blurred = ndimage.gaussian_filter(clean, (1, 1, 0))
    return np.clip(blurred + rng.normal(0, noise, clean.shape), 0, 255).astype(np.uint8)


def touching(seed: int) -> Picture:
    """Cells without gaps between them, and their nuclei: channels cytoplasm and nucleus."""
    rng = np.random.default_rng([seed, 0])
    away = distances(places(rng, 40, 1.9 * RADIUS))
    label = np.where(away.min(0) < 2.2 * RADIUS, away.argmin(0) + 1, 0).astype(np.int32)
    nucleus = away.min(0) < 0.55 * RADIUS
    texture = ndimage.gaussian_filter(rng.normal(0, 60, label.shape), 2)
    image = np.stack([30 + 110 * (label > 0) + texture * (label > 0), 25 + 150 * nucleus], axis=-1)
    return Picture(name=f"touching-{seed}", image=seen(rng, image, 12), label=label)


def stained(seed: int) -> Picture:
    """Blue nuclei, which count, and red droplets, which do not, equally dark: channels red, green and blue."""
    rng = np.random.default_rng([seed, 1])
    points = places(rng, 26, 2.2 * RADIUS)
    inside = distances(points) < rng.uniform(0.75, 1.0, len(points))[:, None, None] * RADIUS
    image = np.full((SIDE, SIDE, 3), (225.0, 175.0, 210.0)) + rng.normal(0, 4, 3)
    label = np.zeros((SIDE, SIDE), np.int32)
    for number, mask in enumerate(inside, 1):
        nucleus = number % 2 == 1
        image[mask] = (95, 70, 165) if nucleus else (165, 70, 95)
        label[mask] = number if nucleus else 0
    return Picture(name=f"stained-{seed}", image=seen(rng, image, 10), label=label)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A family with what its two trainings see."""

    backend: str
    make: Callable[[int], Picture]
    one: dict[str, object]
    """The plan's fields of the training with one channel."""
    all: dict[str, object]
    """The plan's fields of the training with all channels."""


CASES = {
    "touching": Case(backend="cellpose", make=touching, one={"channel": 0}, all={"channels": [0, 1]}),
    "stained": Case(
        backend="stardist", make=stained, one={}, all={"channels": [0, 1, 2], "colour_shift": COLOUR_SHIFT}
    ),
}


def measure(task: Task) -> dict[str, object]:
    """Train and score one model."""
    make = CASES[task.data].make
    first = 100 * task.seed
    began = time.monotonic()
    config, model = fit(task, [make(first + n) for n in range(IMAGES)])
    seconds = time.monotonic() - began
    total = count(model, config.plan, [make(first + 50 + n) for n in range(IMAGES)], IOUS)
    found = {str(each.iou): round(scores(each).f1, 4) for each in total}
    return {"f1": found, "seconds": round(seconds, 1), "steps": config.plan.steps}


def main() -> int:
    """Measure each family with one channel and with all; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each kind [1]")
    parser.add_argument("--steps", type=int, help="steps of each training [the preset's]")
    parser.add_argument("--only", choices=[*CASES], help="one family")
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(measure(read_task())))
        return 0
    results = []
    for name, case in CASES.items():
        if asked.only not in (None, name):
            continue
        for kind, plan in (("one", case.one), ("all", case.all)):
            for seed in range(asked.seeds):
                settings = {"steps": asked.steps} if asked.steps else {}
                task = Task(
                    backend=case.backend, k=2, background="shifted", seed=seed, settings=settings, plan=plan, data=name
                )
                found = run_child(Path(__file__), task, threads=1)
                results.append({"data": name, "backend": case.backend, "channels": kind, "seed": seed, **found})
                print(results[-1], file=sys.stderr)
    target = ROOT / "out" / "bench" / "channels.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"commit": commit(), "results": results}, indent=1) + "\n")
    print(table(results))
    return 0 if all(gain >= MARGIN for gain in gains(results)) else 1


def gains(results: list[dict]) -> list[float]:
    """Return by how much the F1 at IoU 0.5 is better with all channels, for each family."""
    found = []
    for name in dict.fromkeys(each["data"] for each in results):
        one, every = (
            statistics.fmean(each["f1"]["0.5"] for each in results if (each["data"], each["channels"]) == (name, kind))
            for kind in ("one", "all")
        )
        found.append(every - one)
    return found


def table(results: list[dict]) -> str:
    """Return the mean F1 of each kind as Markdown."""
    lines = [
        "| data | backend | channels | " + " | ".join(f"F1 @ {iou}" for iou in IOUS) + " |",
        "|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for each in results:
        groups.setdefault((each["data"], each["backend"], each["channels"]), []).append(each)
    for key, group in groups.items():
        means = [statistics.fmean(each["f1"][str(iou)] for each in group) for iou in IOUS]
        lines.append("| " + " | ".join([*key, *(f"{mean:.3f}" for mean in means)]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
