"""Train a backend on a real stack with a few labelled cells, and score it on the rest of the stack.

Usage: python benchmarks/stacks.py BACKEND [--k K] [--steps N] [--seed S] [--preset fast|paper] [--out FILE]

The stack is the one that ships in the stardist package (31 x 61 x 57 voxels, 51 nuclei). The left half of its columns
is for training. It has labels of the k darkest and the k brightest nuclei, and as background their voxels shifted by
(-10, -10) within their planes, without those on a nucleus. The right half is for scoring, with all nuclei, including
those cut by the middle. The output is one line of JSON: tp, fp and fn at IoU 0.5, F1 at 0.3, 0.5 and 0.7, the same F1
with nuclei cut to less than half taken as not labelled, and the seconds of training and prediction.
"""

import argparse
import importlib
import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from cellsparse_common.imaging.images import normalize
from cellsparse_common.scoring.matching import match_counts, scores
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.training import loop

IOUS = [0.3, 0.5, 0.7]
SHIFT = 10


def stack() -> tuple[np.ndarray, np.ndarray]:
    package = importlib.util.find_spec("stardist")
    assert package is not None
    folder = Path(package.submodule_search_locations[0]) / "data" / "images"
    return tifffile.imread(folder / "img3d.tif"), tifffile.imread(folder / "mask3d.tif").astype(np.int32)


def spacing(label: np.ndarray) -> tuple[float, float, float]:
    """Choose a plane distance, which the file does not have, that makes the nuclei as deep as they are wide."""
    boxes = [box for box in ndimage.find_objects(label) if box is not None]
    deep, high, wide = np.median([[side.stop - side.start for side in box] for box in boxes], axis=0)
    return (float(high + wide) / 2 / float(deep), 1.0, 1.0)


def sparse(image: np.ndarray, label: np.ndarray, k: int) -> np.ndarray:
    """Sparsify with MINMAX k and SHIFTED background by their definitions, axes ZYX."""
    numbers = np.unique(label[label > 0])
    means = [image[label == number].mean() for number in numbers]
    order = numbers[np.argsort(means, kind="stable")]
    kept = np.isin(label, np.concatenate([order[:k], order[-k:]]))
    z, y, x = np.nonzero(kept)
    moved = np.zeros(label.shape, bool)
    inside = (y >= SHIFT) & (x >= SHIFT)
    moved[z[inside], y[inside] - SHIFT, x[inside] - SHIFT] = True
    return np.where(kept, label, np.where(moved & (label == 0), 0, -1)).astype(np.int32)


def without_slivers(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Set nuclei to -1 that have less than half of their voxels in this part of the stack."""
    slivers = [n for n in np.unique(part[part > 0]) if (part == n).sum() < 0.5 * (whole == n).sum()]
    return np.where(np.isin(part, slivers), -1, part).astype(np.int32)


def f1(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    return {f"{counts.iou:g}": round(scores(counts).f1, 3) for counts in match_counts(true, found, IOUS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend", choices=["stardist", "unet"])
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", choices=["fast", "paper"], default="fast")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    settings = trainer_pb2.TrainingSettings(
        preset=f"PRESET_{given.preset.upper()}", seed=given.seed, device="DEVICE_CPU", **{given.backend: {}}
    )
    if given.steps:
        settings.steps = given.steps
    backend = importlib.import_module(f"cellsparse_{given.backend}.backend")
    config = importlib.import_module(f"cellsparse_{given.backend}.config").resolve(settings, 1, stacks=True)
    raw, dense = stack()
    middle = raw.shape[2] // 2
    image = normalize(raw.astype(np.float32), config.plan.lower_percentile, config.plan.upper_percentile)
    label = sparse(raw[..., :middle], dense[..., :middle], given.k)
    sample = Sample(name="left", image=image[..., :middle], label=label, spacing=spacing(dense))

    start = time.monotonic()
    training = backend.create(config, [sample], "cpu")
    for step in range(config.plan.steps):
        losses = training.train_step(step)
        if step % 50 == 0:
            print(f"step {step}: {losses}", flush=True)
    trained = time.monotonic() - start
    model = training.model()
    items = [sample]
    loop.tune(model, config.plan, items, items)
    start = time.monotonic()
    found = model.predict(image[..., middle:])
    predicted = time.monotonic() - start
    true = np.ascontiguousarray(dense[..., middle:])
    half = match_counts(true, found, [0.5])[0]
    result = {
        "backend": given.backend,
        "preset": given.preset,
        "seed": given.seed,
        "steps": config.plan.steps,
        "labelled_cells": len(np.unique(label[label > 0])),
        "labelled_share": round(float((label >= 0).mean()), 3),
        "tp": half.tp,
        "fp": half.fp,
        "fn": half.fn,
        "f1": f1(true, found),
        "f1_without_slivers": f1(without_slivers(true, dense), found),
        "train_seconds": round(trained, 1),
        "predict_seconds": round(predicted, 1),
    }
    print(json.dumps(result))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
