"""What a training takes besides its steps, in processor seconds, so that it can be measured beside other work.

Usage: python benchmarks/fixed_costs.py BACKEND [--k 1] [--images 111] [--steps 6]

Trains `fast` on a part of DSB2018's 441 training images, at equal distances, for a few steps, and validates once on the
50 validation images; all are sparsified. From that it computes what the parts of the whole training take: targets grow
with the images, the rest before the first step does not.
"""

import argparse
import json
import time
from pathlib import Path

from nuclei import BACKENDS, Task, configure, fitted, pictures, samples

from cellsparse_trainer.data.copy_paste import augmented
from cellsparse_trainer.training.scoring import validation_scores
from cellsparse_trainer.training.validation import windows

IMAGES = 441


def main() -> None:
    """Measure, and print two lines of JSON: what was measured, and the whole training's seconds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("backend", choices=BACKENDS)
    parser.add_argument("--k", type=int, default=1)
    parser.add_argument("--images", type=int, default=111)
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    task = Task(backend=given.backend, k=given.k, background="shifted", whole=True, train_images=IMAGES)
    every = max(1, IMAGES // given.images)
    found = pictures(Path(task.data), "train", IMAGES, whole=True)[::every]
    val = pictures(Path(task.data), "val", task.val_images, whole=True)
    began = time.process_time()
    backend, config = configure(task, IMAGES)
    loaded = time.process_time()
    validation = samples(val, config.plan, k=task.k, background=task.background)
    items = samples(found, config.plan, k=task.k, background=task.background)
    config = fitted(config, task, [item for item in items for _ in range(every)])
    backend.create(config, items[:1], "cpu")  # frameworks prepare themselves
    prepared = time.process_time()
    training = backend.create(config, augmented(items, config.plan), "cpu")
    created = time.process_time()
    training.train_step(0)
    first = time.process_time()
    for step in range(1, 1 + given.steps):
        training.train_step(step)
    stepped = time.process_time()
    looked_at = windows(validation, config.plan)
    validation_scores(training.model(), looked_at)
    validated = time.process_time()
    measured = {
        "load": loaded - began,
        "prepare": prepared - loaded,
        "create": created - prepared,
        "step": (stepped - first) / given.steps,
        "validation": validated - stepped,
    }
    print(json.dumps({"images": len(items), **{name: round(value, 3) for name, value in measured.items()}}))
    plan = config.plan
    whole = {
        "before": measured["load"] + measured["prepare"] + measured["create"] * IMAGES / len(items),
        "steps": measured["step"] * plan.steps,
        "validations": measured["validation"] * -(-plan.steps // plan.validate_every),
    }
    total = sum(whole.values())
    shares = {name: {"seconds": round(value), "share": round(value / total, 3)} for name, value in whole.items()}
    print(json.dumps({"planned_steps": plan.steps, "validate_every": plan.validate_every, **shares}))


if __name__ == "__main__":
    main()
