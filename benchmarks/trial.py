"""Train one backend once on all of DSB2018 and score it on the images of "val"; print one line and append it to a file.

Usage: python benchmarks/trial.py BACKEND [--k 1] [--background shifted|none|dense] [--seed 0] [--set NAME=VALUE ...]
       [--config NAME=VALUE ...] [--images 441] [--val-images 50] [--note TEXT] [--out out/bench/trials.jsonl]
       [--export FOLDER]

--set gives fields of TrainingSettings (a dot leads into the backend's own: stardist.grid=2), --config fields of the
resolved configuration that have no setting yet. The labels of "val" choose the best checkpoint and the thresholds only
as far as the sparsifier keeps them. Seconds are of the clock and of the processor, so that trials on a busy machine can
be compared. --export keeps the model, and --out benchmarks/results/trials.jsonl the line with the code.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nuclei import BACKENDS, DENSE, FULL, ROOT, Task, commit, count, pictures, train

from cellsparse_trainer.training.loop import Progress

IOUS = (0.5, 0.7, 0.8, 0.9)


def main() -> None:
    """Do the trial that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("backend", choices=BACKENDS)
    parser.add_argument("--k", type=int, default=1)
    parser.add_argument("--background", default="shifted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--config", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--images", type=int, default=441)
    parser.add_argument("--val-images", type=int, default=50)
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "trials.jsonl")
    parser.add_argument("--export", type=Path)
    given = parser.parse_args()
    task = Task(
        backend=given.backend,
        k=FULL if given.background == DENSE else given.k,
        background=given.background,
        seed=given.seed,
        settings=_nested(given.set),
        config=_nested(given.config),
        train_images=given.images,
        val_images=given.val_images,
        whole=True,
    )
    line = {"note": given.note, **measure(task, given.export)}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("a") as file:
        file.write(json.dumps(line) + "\n")


def measure(task: Task, kept: Path | None = None) -> dict[str, Any]:
    """Train, keep the model in a folder if one is given, score and print."""
    wall, processor = time.monotonic(), time.process_time()
    curve: list[tuple[int, float]] = []

    def report(progress: Progress) -> None:
        if progress.validation:
            curve.append((progress.step, round(progress.validation["score"], 4)))
            print(f"  step {progress.step}: {progress.validation}", flush=True)

    config, model = train(task, report)
    trained = (time.monotonic() - wall, time.process_time() - processor)
    if kept is not None:
        model.export(kept)
    total = count(model, config.plan, pictures(Path(task.data), "val", task.val_images, whole=True), IOUS)
    scores = {
        str(each.iou): {
            "f1": round(2 * each.tp / max(1, 2 * each.tp + each.fp + each.fn), 4),
            "ap": round(each.tp / max(1, each.tp + each.fp + each.fn), 4),
        }
        for each in total
    }
    shown = "  ".join(f"@{iou} F1 {found['f1']:.3f} AP {found['ap']:.3f}" for iou, found in scores.items())
    print(
        f"{task.backend} k={task.k} {task.background} seed {task.seed}: {shown}  train {trained[0]:.0f} s", flush=True
    )
    return {
        "commit": commit(),
        "task": {name: value for name, value in asdict(task).items() if name != "data"},
        "scores": scores,
        "curve": curve,
        "train_seconds": round(trained[0], 1),
        "train_processor_seconds": round(trained[1], 1),
        "score_seconds": round(time.monotonic() - wall - trained[0], 1),
        "steps": config.plan.steps,
    }


def _nested(pairs: list[str]) -> dict[str, Any]:
    """Return {"a": {"b": 1}} for "a.b=1"; values are JSON where they can be."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        *parents, last = name.split(".")
        inner = found
        for parent in parents:
            inner = inner.setdefault(parent, {})
        try:
            inner[last] = json.loads(text)
        except json.JSONDecodeError:
            inner[last] = text
    return found


if __name__ == "__main__":
    main()
