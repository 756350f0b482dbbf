"""What processes that make batches gain and cost: `python benchmarks/prefetch.py [steps]`, seconds on this machine.

First the way from one process to another for batches as large as Cellpose's in the preset `paper`, then steps of a
U-Net in the preset `fast` on the CPU, without and with one process. Each is the median of its steps.
"""

import statistics
import sys
import time
from functools import partial
from types import SimpleNamespace

import numpy as np

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.prefetch import Prefetch
from cellsparse_trainer.data.samples import Sample
from cellsparse_unet import backend
from cellsparse_unet.config import resolve


def median(work, steps: int) -> float:
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        work(step)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def transport(steps: int) -> float:
    # A batch that costs next to nothing to make, as large as two images and two flows per crop.
    ready = SimpleNamespace(batch=partial(np.full, (8, 4, 224, 224), dtype=np.float32))
    ahead = Prefetch(ready, workers=1, steps=steps + 1)
    ahead.batch(0)
    try:
        return median(lambda step: ahead.batch(step + 1), steps)
    finally:
        ahead.close()


def discs(size: int = 256) -> Sample:
    rows, columns = np.indices((size, size))
    label = np.full((size, size), -1, np.int32)
    for number, (y, x) in enumerate(np.random.default_rng(0).integers(16, size - 16, (8, 2)), start=1):
        distance = np.hypot(rows - y, columns - x)
        label[(distance < 14) & (label < 0)] = 0
        label[distance < 9] = number
    image = np.clip((label > 0) * 0.6 + 0.2 + 0.03 * np.random.default_rng(1).standard_normal(label.shape), 0, 1)
    return Sample(name="discs", image=image.astype(np.float32), label=label)


def unet(workers: int, steps: int) -> float:
    config = resolve(trainer_pb2.TrainingSettings(unet={}, steps=steps + 2), 1)
    training = backend.create(config, [discs()], "cpu")
    ahead = Prefetch(training.batches, workers=workers, steps=steps + 2) if workers else None
    if ahead is not None:
        training.batches = ahead
    try:
        for step in (0, 1):
            training.train_step(step)
        return median(lambda step: training.train_step(step + 2), steps)
    finally:
        if ahead is not None:
            ahead.close()


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(f"a batch of 8 x 224 x 224 over the socket: {transport(steps):.4f} s")
    plain, ahead = unet(0, steps), unet(1, steps)
    print(f"U-Net step on the CPU: {plain:.3f} s without processes, {ahead:.3f} s with one ({ahead / plain:.2f} times)")


if __name__ == "__main__":
    main()
