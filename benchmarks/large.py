"""Peak memory of each service for one large image: import, sparsify, train, predict and evaluate.

Usage: PYTHONPATH=tests python benchmarks/large.py [--side 4096] [--channels 1] [--steps 20] [--backend stardist]
       [--out out/bench/large.json]

The image is made up: discs of 10 to 20 pixels in diameter, blurred, with noise, in 16 bit. It is both the dataset's
TRAIN and its TEST item. Memory is looked at 10 times per second. `rss` is all of a process's memory, with the parts of
files that it looks at, which the system takes back where memory is short; `anonymous` is what it cannot take back.
"""

import argparse
import json
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tifffile
from nuclei import ROOT, commit
from scipy import ndimage
from support.interrupts import sigterm_interrupts
from support.orchestrator import Orchestrator

import cellsparse

TILE = 512
LOOK_SECONDS = 0.1


def main() -> None:
    """Measure all steps and write a JSON."""
    sigterm_interrupts()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--backend", choices=("cellpose", "stardist", "unet"), default="stardist")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "large.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cellsparse-bench-") as name:
        folder = Path(name)
        cells = write_files(folder, given.side, given.channels)
        report: dict[str, Any] = {"commit": commit(), "side": given.side, "channels": given.channels, "cells": cells}
        modules = f"{given.backend}=cellsparse_{given.backend}"
        with Orchestrator(folder / "home", CELLSPARSE_TRAINER_MODULES=modules) as orchestrator:
            orchestrator.healthy(given.backend)
            with cellsparse.Client(orchestrator.address) as client:
                report["steps"] = measure(client, folder, orchestrator.pid, given)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {given.out}")


def write_files(folder: Path, side: int, channels: int) -> int:
    """Write image.tif and label.tif, and return the number of cells."""
    rng = np.random.default_rng(0)
    parts = [tile(rng) for _ in range(4)]
    label, image = np.zeros((side, side), np.int32), np.zeros((side, side, channels), np.uint16)
    cells = 0
    for top in range(0, side, TILE):
        for left in range(0, side, TILE):
            pixels, numbers = parts[rng.integers(len(parts))]
            target = label[top : top + TILE, left : left + TILE]
            target[...] = np.where(numbers > 0, numbers + cells, 0)[: target.shape[0], : target.shape[1]]
            cells += int(numbers.max())
            for channel in range(channels):
                noise = rng.normal(0, 60, pixels.shape)
                made = (pixels + noise).clip(0, 65535)[: target.shape[0], : target.shape[1]]
                image[top : top + TILE, left : left + TILE, channel] = made
    squeezed = image[..., 0] if channels == 1 else np.moveaxis(image, -1, 0)
    tifffile.imwrite(folder / "image.tif", squeezed, photometric="minisblack", compression="zlib")
    tifffile.imwrite(folder / "label.tif", label, compression="zlib")
    return cells


def tile(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a part of the image and its labels: discs that do not touch."""
    label = np.zeros((TILE, TILE), np.int32)
    y, x = np.mgrid[:TILE, :TILE]
    number = 0
    for top in range(14, TILE - 14, 28):
        for left in range(14, TILE - 14, 28):
            at = np.array([top, left]) + rng.integers(-3, 4, 2)
            radius = rng.uniform(5, 10)
            number += 1
            label[(y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2] = number
    return 400 + 3000 * ndimage.gaussian_filter((label > 0).astype(float), 1.5), label


def measure(client: cellsparse.Client, folder: Path, pid: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Do all steps, and return seconds and peak memory of each."""
    steps: list[dict[str, Any]] = []
    files = folder / "image.tif", folder / "label.tif"
    channels = {"channels": list(range(given.channels))} if given.channels > 1 else {}
    with watched("import", pid, steps):
        items = [("train", "train", *files), ("test", "test", *files)]
        dataset = client.create_dataset("large", items)
    with watched("sparsify", pid, steps):
        sparse = client.sparsify(dataset.id, mode="minmax", background="ring", k=20)
    with watched("train", pid, steps):
        run = client.train(sparse.id, given.backend, steps=given.steps, **channels)
        run.wait()
    with watched("predict", pid, steps):
        found = client.predict(run.id, files[0])
    print(f"{found.max()} cells found", flush=True)
    with watched("predict geojson", pid, steps):
        print(f"{len(client.predict(run.id, files[0], format='geojson')) / 2**20:.0f} MiB of GeoJSON", flush=True)
    with watched("evaluate", pid, steps):
        client.evaluate(run.id, dataset.id, "test", ious=[0.5])
    return steps


@contextmanager
def watched(name: str, pid: int, steps: list[dict[str, Any]]) -> Iterator[None]:
    """Append seconds and each service's peak memory in MiB during the block."""
    peaks: dict[str, dict[str, float]] = defaultdict(lambda: {"rss": 0.0, "anonymous": 0.0})
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                try:
                    words, figures = process.cmdline(), memory_of(process.pid)
                except (psutil.Error, OSError):
                    continue
                peak = peaks[service_name(words)]
                for key, value in figures.items():
                    peak[key] = max(peak[key], value)

    thread = threading.Thread(target=look, daemon=True)
    began = time.perf_counter()
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        steps.append({"step": name, "seconds": round(time.perf_counter() - began, 1), "peak_mib": dict(peaks)})
        print(json.dumps(steps[-1]), flush=True)


def memory_of(pid: int) -> dict[str, float]:
    """Return a process's memory in MiB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    anonymous, rss = (float(lines[key].split()[0]) / 1024 for key in ("RssAnon", "VmRSS"))
    return {"rss": round(rss), "anonymous": round(anonymous)}


def service_name(words: list[str]) -> str:
    """Return what a process is: the module that it runs."""
    names = [word for word in words if word.startswith("cellsparse")]
    return names[0] if names else "a trainer's child"


if __name__ == "__main__":
    main()
