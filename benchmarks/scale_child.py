"""A process of the scaling benchmark: time training steps of one rank and print them as a line of JSON.

Usage: python benchmarks/scale_child.py BACKEND --warm N --steps N [--gradients float16] [--data FOLDER]
RANK, WORLD_SIZE and the frameworks' own variables select the other ranks.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from nuclei import BACKENDS, DSB2018, Task, configure, pictures, samples

from cellsparse_trainer.distributed.ranks import find_ranks

IMAGES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=BACKENDS)
    parser.add_argument("--warm", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--gradients", default="float32")
    parser.add_argument("--data", type=Path, default=DSB2018)
    options = parser.parse_args()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    ranks = find_ranks()
    settings = {
        "nodes": ranks.world,
        "gradient_format": f"GRADIENT_FORMAT_{options.gradients.upper()}",
    }
    task = Task(
        backend=options.backend, preset="paper", k=4, background="shifted", data=str(options.data), settings=settings
    )
    found = pictures(Path(task.data), "train", IMAGES)
    backend, config = configure(task, len(found))
    items = samples(found, config.plan, k=task.k, background=task.background)
    training = backend.create(config, items, "cpu", None, ranks)
    for step in range(options.warm):
        training.train_step(step)
    began = time.perf_counter()
    for step in range(options.warm, options.warm + options.steps):
        training.train_step(step)
    seconds = (time.perf_counter() - began) / options.steps
    out.write(json.dumps({"seconds": seconds, "crops": config.plan.batch_size, "crop": config.plan.crop_size}) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
