"""How many cells a choice needs: train on ever more cells of the whole data set, chosen in four ways; score on "val".

Usage: python benchmarks/suggest.py [--full] [--data FOLDER] [--out FOLDER] [--jobs N] [--only PATTERN]
       [--backends NAMES] [--methods NAMES] [--budgets NUMBERS] [--seeds N] [--steps N]

The methods are random and minmax (of the true cells, as `cellsparse sparsify --total-cells`), typical (suggestions
without a model, all at once), and suggest: typical for the first budget, then each time the suggestions that the model
of the budget before gives. A simulated annotator answers from the dense labels. All labels bring the shifted background
of the paper. Budgets are cells over the whole data set, whatever the number of images.

With --full: 2 to 128 cells on all 441 images, five seeds, three backends, FAST as it comes. Without it: a few budgets,
one seed, few images and steps, which shows that all parts work, but not what a method can reach.

Every training runs in its own process and writes one file; existing files are not measured again, so that an
interrupted table goes on where it stopped. Those of the whole table are kept with the code, in benchmarks/results/.
FOLDER/suggest.json has the curves: mean, and least and greatest over the seeds.
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from annotator import Notebook, ask, draw, seed_of
from nuclei import (
    BACKENDS,
    CHILD_SECONDS,
    DENSE,
    DSB2018,
    FULL,
    RESULTS,
    ROOT,
    Picture,
    Task,
    commit,
    count,
    fit,
    pictures,
)
from suggest_curves import IOUS, curves, markdown, shown

from cellsparse_common.files import replace_file
from cellsparse_common.imaging.images import normalize, to_gray
from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.suggest.choose import Method

METHODS = ("random", "minmax", "typical", "suggest")
BUDGETS = (2, 4, 8, 16, 32, 64, 128)
SMALL_BUDGETS = (4, 8)
SMALL_STEPS = {"cellpose": 30, "stardist": 60, "unet": 60}
SMALL_IMAGES, SMALL_VAL = 24, 8
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    backend: str
    method: str
    """One of `METHODS`, or "dense": all labels."""
    budget: int
    """Cells over all images; 0 for "dense"."""
    seed: int
    steps: int
    """0: as many as FAST takes."""
    train_images: int
    val_images: int
    data: str
    before: dict[str, Any] = field(default_factory=dict)
    """For "suggest": what was labelled for this budget, chosen by the model of the budget before."""

    @property
    def name(self) -> str:
        """Name of its file."""
        steps = f"-{self.steps}steps" if self.steps else ""
        return f"{self.backend}-{self.method}-{self.budget}-seed{self.seed}{steps}"


def measure(job: Job) -> dict[str, Any]:
    """Label, train, score, and for "suggest" choose the cells of the next budget; runs in a child."""
    began = time.monotonic()
    found = pictures(Path(job.data), "train", job.train_images, whole=True)
    notebook = label(job, found)
    labelled = found
    if notebook is not None:
        marked = [picture for picture in found if picture.name in {*notebook.cells, *notebook.not_cells}]
        labelled = [Picture(name=each.name, image=each.image, label=notebook.labels(each)) for each in marked]
        labelled = [each for each in labelled if (each.label > 0).any()]
    settings: dict[str, Any] = {"steps": job.steps, "validate_every_steps": job.steps} if job.steps else {}
    task = Task(backend=job.backend, k=FULL, background=DENSE, seed=job.seed, settings=settings, data=job.data)
    config, model = fit(task, labelled)
    trained = time.monotonic()
    total = count(model, config.plan, pictures(Path(job.data), "val", job.val_images, whole=True), IOUS)
    result: dict[str, Any] = {
        "counts": [{"iou": each.iou, "tp": each.tp, "fp": each.fp, "fn": each.fn} for each in total],
        "steps": config.plan.steps,
        "train_seconds": trained - began,
        "score_seconds": time.monotonic() - trained,
    }
    if notebook is not None:
        result |= {"cells": notebook.count, "clicks": notebook.clicks, "images": len(labelled)}
        result["labelled"] = notebook.as_json()
    if job.method == "suggest" and notebook is not None:

        def predict(image: Any) -> Any:
            gray = to_gray(image, config.plan.channel)
            return model.predict(normalize(gray, config.plan.lower_percentile, config.plan.upper_percentile))

        ask(found, notebook, 2 * job.budget, method=Method.ERRORS, seed=job.seed, predict=predict)
        result["next"] = notebook.as_json()
    result["seconds"] = time.monotonic() - began
    return result


def label(job: Job, found: list[Picture]) -> Notebook | None:
    """Return what is labelled for a job; None: everything."""
    if job.method == "dense":
        return None
    if job.method == "random":
        return draw(found, Mode.RANDOM, job.budget, seed_of("random", job.seed))
    if job.method == "minmax":
        return draw(found, Mode.MINMAX, job.budget, job.seed)
    notebook = Notebook(**job.before)
    if not notebook.count:
        ask(found, notebook, job.budget, method=Method.TYPICAL, seed=job.seed)
    return notebook


def fill(job: Job, folder: Path) -> dict[str, Any]:
    """Return the result of a job, from its file if there is one."""
    result = known(job, folder)
    if result is None:
        environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--child"],
            input=json.dumps(asdict(job)),
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{job.name} failed with exit code {done.returncode}: {done.stderr[-2000:]}")
        result = {"job": _kept(job), "commit": commit(), **json.loads(done.stdout.splitlines()[-1])}
        replace_file(folder / f"{job.name}.json", json.dumps(result, indent=1) + "\n")
        print(f"{job.name:36} {result['seconds']:6.0f} s  {shown(result)}", flush=True)
    return result


def known(job: Job, folder: Path) -> dict[str, Any] | None:
    """Return the stored result of exactly this job; for "suggest" whatever was labelled before is part of it."""
    path = folder / f"{job.name}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found if found["job"] == _kept(job) else None


def _kept(job: Job) -> dict[str, Any]:
    """Return what a file says of its job: all but where the images were."""
    return {name: value for name, value in asdict(job).items() if name != "data"}


def chain(jobs: list[Job], folder: Path) -> list[dict[str, Any]]:
    """Do jobs one after the other, each on what the one before chose."""
    results: list[dict[str, Any]] = []
    for job in jobs:
        before = results[-1]["next"] if results else {}
        results.append(fill(Job(**{**asdict(job), "before": before}), folder))
    return results


def chains(options: argparse.Namespace) -> list[list[Job]]:
    """Return all jobs: those of a list go one after the other, the lists side by side."""
    full = options.full
    budgets = options.budgets or (BUDGETS if full else SMALL_BUDGETS)
    if "suggest" in options.methods and any(after != 2 * before for before, after in pairwise(sorted(budgets))):
        raise SystemExit(f"--budgets is {budgets}; each must be twice the one before, for the method suggest.")
    found = []
    for backend in options.backends:
        steps = options.steps if options.steps is not None else (0 if full else SMALL_STEPS[backend])
        common = {"backend": backend, "steps": steps, "data": str(options.data)}
        common |= {"train_images": options.images or (441 if full else SMALL_IMAGES)}
        common |= {"val_images": 50 if full else SMALL_VAL}
        for seed in range(options.seeds or (5 if full else 1)):
            found.append([Job(**common, method="dense", budget=0, seed=seed)])
            for method in options.methods:
                jobs = [Job(**common, method=method, budget=budget, seed=seed) for budget in sorted(budgets)]
                found += [jobs] if method == "suggest" else [[job] for job in jobs]
    return [jobs for jobs in found if any(fnmatch.fnmatch(job.name, options.only) for job in jobs)]


def scope(options: argparse.Namespace) -> str:
    """Return what was measured, in words."""
    if options.full:
        return "All 441 training images, 50 validation images, FAST as it comes."
    return (
        f"REDUCED: {options.images or SMALL_IMAGES} training and {SMALL_VAL} validation images and few steps; "
        "`make bench-suggest FULL=1` is the whole table."
    )


def names(allowed: tuple[str, ...]) -> Any:
    """Return a parser of words with commas between."""

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        wrong = [word for word in found if word not in allowed]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(allowed)}")
        return found

    return parse


def main() -> int:
    """Fill the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the whole table")
    parser.add_argument("--data", type=Path, default=DSB2018, help="holds train/ and val/ with images/ and masks/")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time, one thread each")
    parser.add_argument("--only", default="*", help="trainings to run, such as 'unet-random-*'")
    parser.add_argument("--backends", type=names(BACKENDS), default=BACKENDS)
    parser.add_argument("--methods", type=names(METHODS), default=METHODS)
    parser.add_argument("--budgets", type=lambda text: tuple(map(int, text.split(","))), default=(), help="each twice")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None, help="0: as many as FAST takes")
    parser.add_argument("--images", type=int, default=0, help="training images")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(Job(**json.loads(sys.stdin.read())))))
        return 0
    folder = RESULTS / "suggest" if options.full else options.out / "suggest"
    folder.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = [result for part in pool.map(lambda jobs: chain(jobs, folder), chains(options)) for result in part]
    report = {"scope": scope(options), "commits": sorted({result["commit"] for result in results}), **curves(results)}
    (options.out / "suggest.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "suggest.md").write_text(markdown(report))
    print(markdown(report))
    print(f"-> {options.out / 'suggest'}.json and .md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
