"""Whether small images go through a network faster together than one after the other, on this machine's processor.

Usage: python benchmarks/batches.py [--backends unet cellpose stardist] [--size 256] [--images 8] [--rounds 7]
       [--threads 1] [--out out/bench/batches.json]

Each round runs the network on the images one by one and then as one batch. Seconds are the processor's, so that other
programs on the machine matter little; the ratio is that of the medians. `differs` is the largest difference of the two
results.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"unet": "UnetSettings", "cellpose": "CellposeSettings", "stardist": "StardistSettings"}
Run = Callable[[Any], Any]


def unet(config: Any) -> Run:
    """Return what runs a U-Net with random weights on images (N, Y, X)."""
    import torch

    from cellsparse_unet.network import build_network

    network = build_network(config).eval()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images[:, None])).exp().numpy()

    return run


def cellpose(config: Any) -> Run:
    """Return what runs Cellpose's network."""
    import torch

    from cellsparse_cellpose.network import build_network

    network = build_network(config).eval()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(np.repeat(images[:, None], network.nbase[0], axis=1)))[0].numpy()

    return run


def stardist(config: Any) -> Run:
    """Return what runs StarDist's network, as its model does."""
    import tensorflow as tf

    from cellsparse_stardist.network import build_network

    network = build_network(config).keras_model
    graph = tf.function(network, input_signature=[tf.TensorSpec([None, None, None, 1], tf.float32)])
    return lambda images: np.concatenate([part.numpy() for part in graph(images[..., None])], axis=-1)


def measure(name: str, size: int, count: int, rounds: int) -> dict[str, float]:
    """Measure one backend in this process."""
    import importlib

    from cellsparse_proto.v1 import trainer_pb2

    settings = trainer_pb2.TrainingSettings(**{name: getattr(trainer_pb2, SETTINGS[name])()})
    run = globals()[name](importlib.import_module(f"cellsparse_{name}.config").resolve(settings, 1))
    images = np.random.default_rng(0).random((count, size, size), np.float32)
    seconds: dict[str, list[float]] = {"alone": [], "together": []}
    for number in range(rounds + 1):
        begin = time.process_time()
        alone = np.concatenate([run(images[at : at + 1]) for at in range(count)])
        middle = time.process_time()
        together = run(images)
        end = time.process_time()
        if number:  # the first one prepares
            seconds["alone"].append((middle - begin) / count)
            seconds["together"].append((end - middle) / count)
    found = {kind: float(np.median(values)) for kind, values in seconds.items()}
    return {**found, "ratio": found["alone"] / found["together"], "differs": float(np.abs(alone - together).max())}


def main() -> None:
    """Measure each backend in a process of its own, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "batches.json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.backends[0], given.size, given.images, given.rounds)))
        return
    threads = str(given.threads)
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environment = {
        **os.environ,
        **dict.fromkeys(names, threads),
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    figures = {}
    for name in given.backends:
        options = [f"--{option}={getattr(given, option)}" for option in ("size", "images", "rounds")]
        command = [sys.executable, __file__, "--child", "--backends", name, *options]
        line = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        figures[name] = json.loads(line.splitlines()[-1])
        print(name, {key: float(f"{value:.3g}") for key, value in figures[name].items()}, flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"size": given.size, "images": given.images, "backends": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
