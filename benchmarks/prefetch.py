"""What processes that make batches gain and cost: `python benchmarks/prefetch.py [steps]`, seconds on this machine.

Two ways in one run: the own processes of `cellsparse_trainer.data.prefetch`, and the standard library's process pool.

- start: until the first batch is there;
- batch: the way from one process to another for batches as large as Cellpose's in the preset `paper`;
- memory: proportional set size of this process' growth and of the children, with batches of 32 MB ahead;
- kill: how often a child's death while it sends a large batch is noticed within 5 s;
- step: steps of a U-Net in the preset `fast` on the CPU, without and with one process.

Times are medians.
"""

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import psutil
from pool_prefetch import PoolPrefetch

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.prefetch import Prefetch
from cellsparse_trainer.data.samples import Sample

WAYS = {"own": Prefetch, "pool": PoolPrefetch}
KILLS = 20


def full(*shape: int) -> SimpleNamespace:
    """Return a sampler of batches that cost next to nothing to make."""
    return SimpleNamespace(batch=partial(np.full, shape, dtype=np.float32))


PAPER = full(8, 4, 224, 224)
LARGE = full(8, 2**20)


def median(work: Callable[[int], object], steps: int) -> float:
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        work(step)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def start(way: type, times: int = 5) -> float:
    def first(_: int) -> None:
        ahead = way(PAPER, workers=1, steps=1)
        ahead.batch(0)
        running.append(ahead)

    running: list[Prefetch] = []
    try:
        return median(first, times)
    finally:
        for ahead in running:
            ahead.close()


def transport(way: type, steps: int) -> float:
    ahead = way(PAPER, workers=1, steps=steps + 1)
    ahead.batch(0)
    try:
        return median(lambda step: ahead.batch(step + 1), steps)
    finally:
        ahead.close()


def memory(way: type) -> tuple[float, float]:
    """Return the growth of this process and the size of its children in MiB."""
    before = psutil.Process().memory_full_info().pss
    ahead = way(LARGE, workers=2, steps=100)
    try:
        for step in range(8):
            ahead.batch(step)
        time.sleep(1)  # the rest is made ahead
        children = sum(psutil.Process(pid).memory_full_info().pss for pid in ahead.pids)
        return (psutil.Process().memory_full_info().pss - before) / 2**20, children / 2**20
    finally:
        ahead.close()


def kill(way: type) -> int:
    """Return how many of `KILLS` deaths in the middle of sending were noticed within 5 s."""
    noticed = 0
    for number in range(KILLS):
        ahead = way(LARGE, workers=2, steps=10_000)
        ahead.batch(0)
        threading.Timer(0.05 + 0.01 * number, psutil.Process(ahead.pids[0]).kill).start()
        pool = ThreadPoolExecutor(1)
        try:
            pool.submit(_until_it_fails, ahead).result(5)
        except TimeoutError:
            pass
        except Exception:  # noqa: BLE001 - any error is notice
            noticed += 1
        pool.shutdown(wait=False)
        threading.Thread(target=ahead.close, daemon=True).start()
    return noticed


def _until_it_fails(ahead: Prefetch) -> None:
    for step in range(10_000):
        ahead.batch(step)


def discs(size: int = 256) -> Sample:
    rows, columns = np.indices((size, size))
    label = np.full((size, size), -1, np.int32)
    for number, (y, x) in enumerate(np.random.default_rng(0).integers(16, size - 16, (8, 2)), start=1):
        distance = np.hypot(rows - y, columns - x)
        label[(distance < 14) & (label < 0)] = 0
        label[distance < 9] = number
    image = np.clip((label > 0) * 0.6 + 0.2 + 0.03 * np.random.default_rng(1).standard_normal(label.shape), 0, 1)
    return Sample(name="discs", image=image.astype(np.float32), label=label)


def unet(way: type | None, steps: int) -> float:
    from cellsparse_unet import backend  # not above: a pool's processes import this file, too
    from cellsparse_unet.config import resolve

    config = resolve(trainer_pb2.TrainingSettings(unet={}, steps=steps + 2), 1)
    training = backend.create(config, [discs()], "cpu")
    ahead = way(training.batches, workers=1, steps=steps + 2) if way else None
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
    plain = unet(None, steps)
    print(f"U-Net step on the CPU without processes: {plain:.3f} s")
    for name, way in WAYS.items():
        grown, children = memory(way)
        print(
            f"{name}: start {start(way):.2f} s, a batch of 8 x 224 x 224 {transport(way, 10 * steps):.4f} s, "
            f"memory {grown:.0f} MiB here and {children:.0f} MiB in two children, "
            f"U-Net step {unet(way, steps):.3f} s, {kill(way)} of {KILLS} kills noticed",
            flush=True,
        )
    os._exit(0)  # a pool that lost a process in the middle of a message would be waited for without end


if __name__ == "__main__":
    main()
