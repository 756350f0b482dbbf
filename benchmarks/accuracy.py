"""Train on ever fewer labels through the command line, and score on all labels; write out/bench/accuracy.json and .md.

Usage: python benchmarks/accuracy.py [--full] [--tree DIR] [--data FOLDER] [--only PATTERN] [--out FOLDER]

Everything goes through `cellsparse`: import, sparsify (MINMAX k, background shifted), train with `fast` as it comes,
evaluate. So the same script measures another checkout that has been set up, `--tree DIR`, for a comparison of before
and after in one table. DSB2018 is trained on "train" and scored on "val"; "val" also chooses the checkpoint, with the
labels that the sparsifier keeps. The generated families (see `families.py`) are scored on images that no training saw.
Without --full there is one seed, k of 1 and all labels, and 24 and 10 images of DSB2018.

Each training writes one file, in a folder of its commit. What is there is not measured again, so an interrupted table
goes on where it stopped. Files of the full table are kept with the code, in benchmarks/results/.
"""

import argparse
import fnmatch
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from families import FAMILIES, write

from cellsparse_common.files import replace_file

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DSB2018 = ROOT.parent / "shared" / "data" / "dsb2018"
BACKENDS = ("cellpose", "stardist", "unet")
IOUS = (0.5, 0.7, 0.8, 0.9)
DENSE = "dense"
FEW_IMAGES = {"train": 24, "val": 10}
TRAIN_SECONDS = 2 * 3600
CALL_SECONDS = 1800


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training.

    Attributes:
        data: Name of the data.
        labels: k of MINMAX, or `DENSE`.
        backend: One of `BACKENDS`.
        seed: Of the training.
    """

    data: str
    labels: str
    backend: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        labels = self.labels if self.labels == DENSE else f"k{self.labels}"
        return f"{self.data}-{labels}-{self.backend}-seed{self.seed}"


class Checkout:
    """The `cellsparse` of a checkout, with a home of its own.

    Args:
        tree: The checkout, with its `.venv`.
        home: Folder of the server's data.
    """

    def __init__(self, tree: Path, home: Path) -> None:
        self._program = tree / ".venv" / "bin" / "cellsparse"
        self._environment = {**os.environ, "CELLSPARSE_HOME": str(home)}
        self.commit = subprocess.run(
            [shutil.which("git") or "git", "-C", str(tree), "describe", "--always", "--dirty", "--exclude=*"],
            check=True,
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
        ).stdout.strip()

    def call(self, *arguments: str, seconds: float = CALL_SECONDS) -> list[Any]:
        """Return the JSON documents that a command prints.

        Raises:
            RuntimeError: It failed.
        """
        done = subprocess.run(
            [self._program, *arguments, "--json"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"cellsparse {' '.join(arguments)}: {done.stderr.strip() or done.stdout[-500:]}")
        return list(_documents(done.stdout))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Have its services run meanwhile."""
        self.call("up", "--port", "0", "--timeout", "600")
        try:
            yield
        finally:
            subprocess.run([self._program, "down"], env=self._environment, check=False, timeout=CALL_SECONDS)


def _documents(text: str) -> Iterator[Any]:
    decoder, place = json.JSONDecoder(), 0
    while text[place:].strip():
        place += len(text[place:]) - len(text[place:].lstrip())
        found, place = decoder.raw_decode(text, place)
        yield found


def folders(data: Path, work: Path, *, full: bool) -> dict[str, Path]:
    """Return the folders of the data by name; what is made or chosen lies in `work`."""
    found = {}
    if data.is_dir():
        found["dsb2018"] = data if full else _few(data, work / "dsb2018-few")
    else:
        print(f"{data} is not there: only the generated families are measured.", file=sys.stderr)
    return found | {family: write(family, work / family) for family in FAMILIES}


def _few(data: Path, chosen: Path) -> Path:
    for split, count in FEW_IMAGES.items():
        paths = sorted((data / split / "images").iterdir())
        for kind in ("images", "masks"):
            (chosen / split / kind).mkdir(parents=True)
            for path in paths[:: max(1, len(paths) // count)][:count]:
                shutil.copy(data / split / kind / path.name, chosen / split / kind)
    return chosen


def tasks(names: list[str], *, full: bool) -> list[Task]:
    """Return the trainings of the table in order."""
    labels = {name: ("1", DENSE) if not full or name in FAMILIES else ("1", "2", "4", DENSE) for name in names}
    return [
        Task(data=name, labels=each, backend=backend, seed=seed)
        for name in names
        for seed in range(3 if full else 1)
        for each in labels[name]
        for backend in BACKENDS
    ]


def measure(checkout: Checkout, task: Task, folder: Path) -> dict[str, Any]:
    """Import, sparsify, train and evaluate."""
    split = "test" if (folder / "test").is_dir() else "val"
    (dense,) = checkout.call("dataset", "import", str(folder), "--name", task.name)
    dataset = dense
    if task.labels != DENSE:
        (dataset,) = checkout.call("sparsify", dense["id"], "--k", task.labels, "--name", f"{task.name}-sparse")
    began = time.monotonic()
    settings = ["--set", f"seed={task.seed}"]
    lines = checkout.call("train", dataset["id"], "--backend", task.backend, *settings, seconds=TRAIN_SECONDS)
    seconds = time.monotonic() - began
    thresholds = [word for iou in IOUS for word in ("--iou", str(iou))]
    (scores,) = checkout.call("evaluate", lines[-1]["id"], dense["id"], "--split", split, *thresholds)
    steps = max((each["training"] or {}).get("step", 0) for each in lines if each["type"] == "event")
    return {"train_seconds": round(seconds, 1), "steps": steps, "cells": dataset["train_cells"], "scores": scores}


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the table as Markdown: means over the seeds, ± standard deviations where there are several."""
    head = [f"{score} @ {iou}" for score in ("F1", "AP") for iou in IOUS]
    lines = [
        "| data | labels | backend | commit | seeds | steps | seconds | " + " | ".join(head) + " |",
        "|---|---|---|---|---|---|---|" + "---|" * len(head),
    ]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for each in results:
        groups.setdefault(tuple(each[key] for key in ("data", "labels", "backend", "commit")), []).append(each)
    for key, group in groups.items():
        cells = [*key, str(len(group))]
        cells += [f"{statistics.fmean(each[name] for each in group):.0f}" for name in ("steps", "train_seconds")]
        for score in ("f1", "ap"):
            for iou in IOUS:
                values = [each["by_iou"][str(iou)][score] for each in group]
                spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
                cells.append(f"{statistics.fmean(values):.3f}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_iou(scores: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return F1 and AP at each IoU of an answer of `evaluate`."""
    return {str(each["iou"]): {"f1": each["f1"], "ap": each["ap"]} for each in scores["scores"]}


def main() -> int:
    """Measure what is asked for and is not there yet; print and write the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all images, k of 1, 2, 4 and all labels, three seeds")
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout to measure, after its `make setup`")
    parser.add_argument("--data", type=Path, default=DSB2018, help="holds train/ and val/ with images/ and masks/")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench")
    parser.add_argument("--only", default="*", help="trainings to run, such as 'dsb2018-k1-*' or '*-unet-seed0'")
    options = parser.parse_args()
    kept = RESULTS / "accuracy" if options.full else options.out / "accuracy"
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        checkout = Checkout(options.tree, Path(work) / "home")
        found = folders(options.data, Path(work), full=options.full)
        wanted = [each for each in tasks(list(found), full=options.full) if fnmatch.fnmatch(each.name, options.only)]
        missing = [each for each in wanted if not _file(kept, checkout.commit, each).exists()]
        with checkout.serving():
            for task in missing:
                answer = {**vars(task), "commit": checkout.commit, **measure(checkout, task, found[task.data])}
                answer["by_iou"] = by_iou(answer.pop("scores"))
                path = _file(kept, checkout.commit, task)
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, json.dumps(answer, indent=1) + "\n")
                shown = "  ".join(f"@{iou} F1 {each['f1']:.3f}" for iou, each in answer["by_iou"].items())
                print(f"{task.name:36} {answer['train_seconds']:6.0f} s  {shown}", flush=True)
    results = [json.loads(path.read_text()) for path in sorted(kept.glob("*/*.json"))]
    table = summarise(results)
    (options.out / "accuracy.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "accuracy.md").write_text(table)
    print(table)
    return 0


def _file(kept: Path, commit: str, task: Task) -> Path:
    return kept / commit / f"{task.name}.json"


if __name__ == "__main__":
    sys.exit(main())
