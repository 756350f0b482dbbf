"""Train every backend on fewer and fewer labels and score it; write out/bench/accuracy.json and accuracy.md.

Usage: python benchmarks/accuracy.py [--full] [--data FOLDER] [--out FOLDER] [--jobs N] [--only PATTERN] [--labels-only]

The rows of the table are k (MINMAX) of 1, 4, 16 and all cells with background none and shifted, and "dense", the labels
as they are. F1 and AP = tp / (tp + fp + fn) at IoU 0.5, 0.7 and 0.9 come from counts summed over the validation images.
The preset is FAST. With --full the table has all rows, the preset's whole budget, three seeds, 32 training and 31
validation images. Without --full there are fewer of each, as the output says: the table then shows that all parts work
and the direction of the differences, but not what a backend can reach. --labels-only switches likely background off;
its effect on background "none" is the difference between these two:

    python benchmarks/accuracy.py --only '*-k4-none-*'; python benchmarks/accuracy.py --only '*-k4-none-*' --labels-only

Every row and seed runs in its own process and writes one file to FOLDER/accuracy/. Existing files are not measured
again, so an interrupted table continues where it stopped. Delete files to measure them again, for instance after a
change of code.
"""

import argparse
import fnmatch
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nuclei import (
    BACKENDS,
    DENSE,
    DSB2018,
    FULL,
    ROOT,
    Task,
    commit,
    count,
    data_name,
    pictures,
    read_task,
    run_child,
    train,
)

from cellsparse_common.files import replace_file

IOUS = (0.5, 0.7, 0.9)
AIM = 0.9
"""Share of the dense labels' F1 at 0.5 that k = 4 with shifted background should reach."""
SMALL_STEPS = {"cellpose": 180, "stardist": 250, "unet": 125}
"""Half of FAST's budget."""
LABELS_ONLY = {
    "cellpose": {"likely_background": 0},
    "stardist": {"likely_background": 0},
    "unet": {"likely_background": 0},
}
"""Settings that supervise with labels only."""


def tasks(data: Path, *, full: bool, labels_only: bool) -> list[Task]:
    """Return the trainings of the table in order."""
    rows = [(k, background) for k in ((1, 4, 16, FULL) if full else (1, 4, FULL)) for background in ("none", "shifted")]
    found = []
    for backend in BACKENDS:
        for k, background in [*rows, (FULL, DENSE)]:
            for seed in range(3 if full else 1):
                settings: dict[str, Any] = {backend: LABELS_ONLY[backend]} if labels_only else {}
                task = Task(backend=backend, k=k, background=background, seed=seed, settings=settings, data=str(data))
                if not full:
                    steps = SMALL_STEPS[backend]
                    settings |= {"steps": steps, "validate_every_steps": steps}
                    task = replace(task, train_images=16, val_images=8)
                found.append(task)
    return found


def name_of(task: Task) -> str:
    k = "full" if task.k == FULL else str(task.k)
    return f"{task.backend}-k{k}-{task.background}-seed{task.seed}"


def measure(task: Task) -> dict[str, Any]:
    """Train and score; runs in a child."""
    began = time.monotonic()
    config, model = train(task)
    trained = time.monotonic()
    total = count(model, config.plan, pictures(Path(task.data), "val", task.val_images), IOUS)
    return {
        "counts": [{"iou": each.iou, "tp": each.tp, "fp": each.fp, "fn": each.fn} for each in total],
        "steps": config.plan.steps,
        "train_seconds": trained - began,
        "score_seconds": time.monotonic() - trained,
        "config": json.loads(config.to_json()),
    }


def fill(task: Task, folder: Path, threads: int) -> dict[str, Any]:
    """Return the result of a task, from its file if there is one."""
    found = known(task, folder)
    if found is not None:
        return found
    answer = {"task": asdict(task), "commit": commit(), **run_child(Path(__file__), task, threads=threads)}
    replace_file(folder / f"{name_of(task)}.json", json.dumps(answer, indent=1) + "\n")
    shown = ", ".join(f"F1@{each['iou']} {ratios(each)[0]:.3f}" for each in answer["counts"])
    print(f"{name_of(task):36} {answer['train_seconds']:6.0f} s  {shown}", flush=True)
    return answer


def known(task: Task, folder: Path) -> dict[str, Any] | None:
    """Return the stored result of exactly this task."""
    path = folder / f"{name_of(task)}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found if found["task"] == asdict(task) else None


def ratios(counts: dict[str, Any]) -> tuple[float, float]:
    """Return F1 and AP."""
    tp, wrong = counts["tp"], counts["fp"] + counts["fn"]
    return (2 * tp / (2 * tp + wrong), tp / (tp + wrong)) if tp else (0.0, 0.0)


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per backend, k and background: mean and standard deviation over the seeds."""
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for result in results:
        task = result["task"]
        groups.setdefault((task["backend"], task["k"], task["background"]), []).append(result)
    rows = []
    for (backend, k, background), group in groups.items():
        row: dict[str, Any] = {"backend": backend, "k": "full" if k == FULL else k, "background": background}
        row["seeds"] = [result["task"]["seed"] for result in group]
        for place, iou in enumerate(IOUS):
            for which, score in enumerate(("f1", "ap")):
                values = [ratios(result["counts"][place])[which] for result in group]
                row[f"{score}_{iou}"] = {"mean": statistics.fmean(values), "std": statistics.pstdev(values)}
        row["train_seconds"] = statistics.fmean(result["train_seconds"] for result in group)
        rows.append(row)
    return rows


def shares(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return F1 at 0.5 of k = 4 with shifted background relative to that of the dense labels, by backend."""
    f1 = {(row["backend"], row["k"], row["background"]): row["f1_0.5"]["mean"] for row in rows}
    found: dict[str, float | None] = {}
    for backend in BACKENDS:
        few, dense = f1.get((backend, 4, "shifted")), f1.get((backend, "full", DENSE))
        found[backend] = few / dense if few is not None and dense else None
    return found


def markdown(report: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    lines = [
        "# Accuracy from sparse labels",
        "",
        f"{report['data']}, preset FAST. {report['scope']}",
        f"Code: {', '.join(report['commits'])}. Means over the seeds, ± standard deviations where there are several.",
        "",
        "| backend | k | background | " + " | ".join(f"{s} @ {iou}" for s in ("F1", "AP") for iou in IOUS) + " | s |",
        "|---|---|---|" + "---|" * (2 * len(IOUS) + 1),
    ]
    for row in report["rows"]:
        cells = [row["backend"], str(row["k"]), row["background"]]
        for score in ("f1", "ap"):
            for iou in IOUS:
                value = row[f"{score}_{iou}"]
                spread = f" ± {value['std']:.2f}" if len(row["seeds"]) > 1 else ""
                cells.append(f"{value['mean']:.2f}{spread}")
        lines.append("| " + " | ".join([*cells, f"{row['train_seconds']:.0f}"]) + " |")
    lines += ["", f"k = 4 with shifted background, as a share of the dense labels' F1 at 0.5 (aim: {AIM}):"]
    for backend, share in report["k4_shifted_share_of_full"].items():
        lines.append(f"- {backend}: {'not measured' if share is None else f'{share:.2f}'}")
    if report["missing"]:
        lines += ["", f"Not measured yet: {', '.join(report['missing'])}."]
    return "\n".join(lines) + "\n"


def scope(full: bool) -> str:
    if full:
        return "The whole table: three seeds, 32 training and 31 validation images, FAST's budget of steps."
    return (
        "REDUCED: one seed, 16 training and 8 validation images, half of FAST's steps with one validation, no k = 16; "
        "`make bench-accuracy FULL=1` is the whole table."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the whole table")
    parser.add_argument("--data", type=Path, default=DSB2018, help="holds train/ and val/ with images/ and masks/")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time, one thread each")
    parser.add_argument("--only", default="*", help="rows to run, such as '*-k4-*' or 'unet-*'")
    parser.add_argument("--labels-only", action="store_true", help="without likely background")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(read_task())))
        return 0

    name = "accuracy-labels-only" if options.labels_only else "accuracy"
    folder = options.out / name / ("full" if options.full else "small")
    table = tasks(options.data, full=options.full, labels_only=options.labels_only)
    began = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        chosen = [each for each in table if fnmatch.fnmatch(name_of(each), options.only)]
        list(pool.map(lambda each: fill(each, folder, threads=1), chosen))
    results = [found for each in table if (found := known(each, folder)) is not None]
    rows = summarise(results)
    report = {
        "data": data_name(options.data),
        "full": options.full,
        "scope": scope(options.full) + (" Without likely background." if options.labels_only else ""),
        "labels_only": options.labels_only,
        "commits": sorted({result["commit"] for result in results}),
        "ious": IOUS,
        "rows": rows,
        "k4_shifted_share_of_full": shares(rows),
        "aim": AIM,
        "missing": [name_of(each) for each in table if known(each, folder) is None],
        "seconds": time.monotonic() - began,
    }
    (options.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / f"{name}.md").write_text(markdown(report))
    print(markdown(report))
    print(f"-> {options.out / name}.json and .md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
