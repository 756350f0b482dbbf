"""One task of the GPU check: reads it as JSON from standard input, prints answers as JSON on lines of their own."""

import importlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_check import ANSWER, COMPARED_STEPS
from nuclei import Picture, Task, configure, count, fitted, pictures, samples

from cellsparse_common.imaging.images import normalize, to_gray
from cellsparse_common.storage.folder import FolderStore
from cellsparse_trainer.data.prefetch import default_workers
from cellsparse_trainer.training import loop
from cellsparse_trainer.training.ahead import ahead
from cellsparse_trainer.training.checkpoints import Checkpoints

NO_DATA = "/nonexistent"
"""Means the nuclei that ship with StarDist, cut into tiles."""
SIDE = 256
IOU = 0.5
WARM = 3
"""Steps and predictions before the clock starts: frameworks choose their kernels in the first ones."""


def main() -> None:
    """Do the task."""
    task = json.loads(sys.stdin.read())
    if task["what"] != "time":
        prepared = Prepared(task, task["settings"])
        say({"losses": losses, "train": trained}[task["what"]](prepared))
        return
    for name, settings in task["variants"].items():
        say({"variant": name} | timed(Prepared(task, settings), task))


def say(answer: dict[str, Any]) -> None:
    """Print an answer."""
    print(f"\n{ANSWER}{json.dumps(answer)}", flush=True)


class Prepared:
    """A training on the device that the task names, which fails where the device is missing."""

    def __init__(self, task: dict[str, Any], settings: dict[str, Any]) -> None:
        self.found = pictures(Path(NO_DATA), "train", 100)
        self.unseen = pictures(Path(NO_DATA), "val", 100)
        steps = task.get("steps")
        if task["what"] == "train" and steps:
            settings = {**settings, "steps": steps, "validate_every_steps": steps}
        asked = Task(backend=task["backend"], k=4, background="shifted", data=NO_DATA, settings=settings)
        self.device = task["device"]
        self.backend, config = configure(asked, len(self.found))
        self.items = samples(self.found, config.plan, k=4, background="shifted")
        self.config = fitted(config, asked, self.items)
        self.training = self.backend.create(self.config, self.items, self.device)


def losses(prepared: Prepared) -> dict[str, Any]:
    """Return the loss of each of the first steps."""
    return {"losses": [prepared.training.train_step(step)["loss"] for step in range(COMPARED_STEPS)]}


def trained(prepared: Prepared) -> dict[str, Any]:
    """Train to the end and score the unseen tile."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cellsparse-gpu-check-") as folder:
        store = FolderStore(Path(folder) / "store")
        setup = loop.Setup(
            training=prepared.training,
            plan=prepared.config.plan,
            items=len(prepared.items),
            validation=prepared.items,
            checkpoints=Checkpoints(store, "check", Path(folder) / "checkpoints"),
        )
        loop.run(setup, lambda _: None, lambda: False)
    seconds = time.monotonic() - began
    model = prepared.training.model()
    loop.tune(model, prepared.config.plan, prepared.items, prepared.items)
    found = count(model, prepared.config.plan, prepared.unseen, [IOU])[0]
    f1 = 2 * found.tp / max(1, 2 * found.tp + found.fp + found.fn)
    return {"f1": f1, "seconds": seconds, "steps": prepared.config.plan.steps, "cells": found.tp + found.fn}


def timed(prepared: Prepared, task: dict[str, Any]) -> dict[str, Any]:
    """Time steps and predictions of images of `SIDE` x `SIDE` pixels."""
    steps, training = task["steps"], prepared.training
    reset_peak_memory(prepared)
    workers = default_workers(prepared.backend.devices(), prepared.device)
    with ahead(training, workers, WARM + steps):
        first = [training.train_step(step)["loss"] for step in range(WARM)]
        began = time.perf_counter()
        for step in range(WARM, WARM + steps):
            training.train_step(step)
        step_seconds = (time.perf_counter() - began) / steps
    model, image = training.model(), square(prepared)
    model.predict(image)
    began = time.perf_counter()
    for _ in range(task["predictions"]):
        model.predict(image)
    return {
        "losses": first,
        "steps_per_second": 1 / step_seconds,
        "crops_per_second": prepared.config.plan.crops_per_step / step_seconds,
        "images_per_second": task["predictions"] / (time.perf_counter() - began),
        "peak_memory_mib": peak_memory_mib(prepared),
    }


def square(prepared: Prepared) -> np.ndarray:
    """Return a normalised image of `SIDE` x `SIDE` pixels."""
    picture: Picture = prepared.found[0]
    plan = prepared.config.plan
    image = normalize(to_gray(picture.image, plan.channel), plan.lower_percentile, plan.upper_percentile)
    return np.ascontiguousarray(np.pad(image, [(0, max(0, SIDE - side)) for side in image.shape], "wrap")[:SIDE, :SIDE])


def reset_peak_memory(prepared: Prepared) -> None:
    """Count the largest memory of a GPU from here on."""
    if prepared.device == "cpu":
        return
    if "torch" in sys.modules:
        importlib.import_module("torch").cuda.reset_peak_memory_stats()
    else:
        importlib.import_module("tensorflow").config.experimental.reset_memory_stats("GPU:0")


def peak_memory_mib(prepared: Prepared) -> float:
    """Return the largest memory in use so far: of the GPU on a GPU, else of this process."""
    if prepared.device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if "torch" in sys.modules:
        torch = importlib.import_module("torch")
        return float(torch.cuda.max_memory_allocated() / 2**20)
    tf = importlib.import_module("tensorflow")
    return float(tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20)


if __name__ == "__main__":
    main()
