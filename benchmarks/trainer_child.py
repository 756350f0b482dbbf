"""A process of the trainers' benchmark: it holds one backend, so that no other framework counts in its peak memory.

It prints JSON lines to its original standard output; what frameworks print goes to standard error.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

from nuclei import BACKENDS, Picture, Task, configure, count, pictures, samples
from trainer_figures import GOAL, IOU

from cellsparse_common.datasets import put_item
from cellsparse_common.storage.folder import FolderStore
from cellsparse_proto.v1 import common_pb2
from cellsparse_sparsifier.background import Background
from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.sparsify import Settings, sparsify
from cellsparse_trainer.data.samples import CACHE_BYTES, StoredSamples
from cellsparse_trainer.training import loop

PREVIEW = 8
"""Validation images scored at every evaluation; all images are scored to confirm that the goal is reached."""
EVALUATIONS = 10
"""Evaluations in the steps of FAST, in the shorter of the two presets."""
MEMORY_STEPS = 30


class OurSteps:
    """Our own training steps, as the trainer's loop calls them."""

    def __init__(self, task: Task, found: list[Picture]) -> None:
        backend, config = configure(task, len(found))
        items = samples(found, config.plan, k=task.k, background=task.background)
        self._training = backend.create(config, items, "cpu")
        self._step = 0

    def run(self, steps: int) -> list[float]:
        times = []
        for _ in range(steps):
            began = time.perf_counter()
            self._training.train_step(self._step)
            times.append(time.perf_counter() - began)
            self._step += 1
        return times


def answer_steps(task: Task, side: str, out: TextIO) -> None:
    """Do as many steps as each line of standard input requests, and answer with the seconds of each."""
    found = pictures(Path(task.data), "train", task.train_images)
    if side == "ours":
        steps: Any = OurSteps(task, found)
    else:
        from stock_steps import STEPS

        _, config = configure(task, len(found))
        items = samples(found, config.plan, k=task.k, background=task.background)
        steps = STEPS[task.backend](config, found, items)
    for line in sys.stdin:
        before = time.process_time()
        times = steps.run(int(line))
        say(out, seconds=times, cpu_seconds=(time.process_time() - before) / len(times))


def race(task: Task, out: TextIO) -> None:
    """Train to the last step; report F1 on validation images at intervals, with the seconds of training so far.

    Before an evaluation, the thresholds are tuned on the training items, as at the end of a run. Tuning and evaluation
    do not count as training. Building the network, reading images and computing targets do.
    """
    found = pictures(Path(task.data), "train", task.train_images)
    val = pictures(Path(task.data), "val", task.val_images)
    began, cpu_began = time.perf_counter(), time.process_time()
    backend, config = configure(task, len(found))
    items = samples(found, config.plan, k=task.k, background=task.background)
    training = backend.create(config, items, "cpu")
    trained, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    _, fast = configure(Task(backend=task.backend, k=task.k, background=task.background), len(found))
    every = max(1, fast.plan.steps // EVALUATIONS) if task.preset == "fast" else max(1, config.plan.steps // 40)
    for step in range(config.plan.steps):
        began, cpu_began = time.perf_counter(), time.process_time()
        losses = training.train_step(step)
        trained, cpu = trained + time.perf_counter() - began, cpu + time.process_time() - cpu_began
        if (step + 1) % every and step + 1 < config.plan.steps:
            continue
        model = training.model()
        loop.tune(model, config.plan, items, items)
        f1 = f1_of(model, config.plan, val[:: max(1, len(val) // PREVIEW)])
        confirmed = f1_of(model, config.plan, val) if f1 >= GOAL or step + 1 == config.plan.steps else None
        at = {"step": step + 1, "steps": config.plan.steps, "seconds": trained, "cpu_seconds": cpu}
        say(out, **at, loss=losses["loss"], f1=f1, f1_all=confirmed)


def f1_of(model: Any, plan: Any, found: list[Picture]) -> float:
    counts = count(model, plan, found, [IOU])[0]
    return 2 * counts.tp / max(1, 2 * counts.tp + counts.fp + counts.fn)


def memory(task: Task, images: int, cache_bytes: int, out: TextIO) -> None:
    """Train briefly on a number of items from a store, made of few files, and read each item once."""
    found = pictures(Path(task.data), "train", task.train_images)
    rule = Settings(mode=Mode.MINMAX, k=task.k, background=Background[task.background.upper()])
    with tempfile.TemporaryDirectory(prefix="cellsparse-bench-") as folder:
        store = FolderStore(Path(folder))
        train = common_pb2.SPLIT_TRAIN
        stored = [
            put_item(
                store, name=one.name, split=train, image=one.image, label=sparsify(one.image, one.label, rule).label
            )
            for one in found
        ]
        items = [stored[n % len(stored)] for n in range(images)]
        backend, config = configure(task, images)
        read = StoredSamples(store, items, config.plan, cache_bytes=cache_bytes)
        training = backend.create(config, read, "cpu")
        for step in range(MEMORY_STEPS):
            training.train_step(step)
        for _ in read:
            pass
        say(out, images=images)


def say(out: TextIO, **message: Any) -> None:
    message["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out.write(json.dumps(message) + "\n")
    out.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("ours", "stock", "race", "memory"))
    parser.add_argument("backend", choices=BACKENDS)
    parser.add_argument("preset", choices=("fast", "paper"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--cache-mib", type=int, default=CACHE_BYTES // 2**20)
    parser.add_argument("--settings", type=json.loads, default={}, help="fields of TrainingSettings, as JSON")
    options = parser.parse_args()
    task = Task(
        backend=options.backend,
        preset=options.preset,
        k=4,
        background="shifted",
        data=str(options.data),
        settings=options.settings,
    )
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if options.what == "race":
        race(task, out)
    elif options.what == "memory":
        memory(task, options.images, options.cache_mib * 2**20, out)
    else:
        answer_steps(task, options.what, out)


if __name__ == "__main__":
    main()
