"""Time the sparsifier against a plain scikit-image version of its definition, and compare their results.

Usage: python benchmarks/sparsify.py [--data FOLDER] [--out FILE]. FOLDER holds images/ and masks/ with equal file names
(default: DSB2018 if it is there, otherwise generated images). The exit code is 1 if any pixel differs.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# One thread on both sides, to compare the work and not the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tifffile

from cellsparse_sparsifier.background import Background
from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.sparsify import Settings, sparsify

ROOT = Path(__file__).resolve().parents[1]
DSB2018 = ROOT.parent / "shared" / "data" / "dsb2018" / "train"
TIMED = [
    Settings(mode=Mode.MIN, background=Background.NONE, k=1),
    Settings(mode=Mode.MINMAX, background=Background.SHIFTED, k=4),
    Settings(mode=Mode.MAX, background=Background.SHIFTED, k=256),
    Settings(mode=Mode.MINMAX, background=Background.RING, k=4),
    Settings(mode=Mode.RANDOM, background=Background.ALL, k=4),
]
COMPARED = [
    Settings(mode=mode, background=background, k=k, distance=distance)
    for mode, background, k, distance in itertools.product(Mode, Background, (1, 16, 65535), (3, 10))
]

Picture = tuple[np.ndarray, np.ndarray]


def real(folder: Path) -> Iterator[Picture]:
    for path in sorted((folder / "images").glob("*.tif")):
        yield tifffile.imread(path), tifffile.imread(folder / "masks" / path.name).astype(np.int32)


def generated(count: int = 100, side: int = 360, cells: int = 42) -> Iterator[Picture]:
    """Draw discs of radius 4 to 12 on a noisy background, in the size and density of DSB2018's nuclei."""
    y, x = np.mgrid[:side, :side]
    for seed in range(count):
        rng = np.random.default_rng(seed)
        label = np.zeros((side, side), np.int32)
        for number in range(1, cells + 1):
            (cy, cx), radius = rng.uniform(0, side, 2), rng.uniform(4, 12)
            label[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
        image = rng.integers(0, 40, label.shape) + (label > 0) * rng.integers(30, 200, cells + 1)[label]
        yield image.astype(np.uint8), label


def cell_table(image: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    from skimage.measure import regionprops_table

    return regionprops_table(label, image, properties=["label", "axis_minor_length", "intensity_mean"])


def plain(image: np.ndarray, label: np.ndarray, settings: Settings, table: dict | None = None) -> np.ndarray:
    """Sparsify by the definition, written plainly with scikit-image."""
    from scipy.ndimage import distance_transform_edt

    table = cell_table(image, label) if table is None else table
    candidates = table["axis_minor_length"] > 0
    numbers, means = table["label"][candidates], table["intensity_mean"][candidates]
    dark, bright = np.lexsort((numbers, means)), np.lexsort((numbers, -means))
    k = settings.k
    chosen = {
        Mode.MIN: dark[: 2 * k],
        Mode.MAX: bright[: 2 * k],
        Mode.MINMAX: np.concatenate([dark[:k], bright[:k]]) if len(numbers) >= 2 * k else dark,
        Mode.RANDOM: np.random.default_rng(settings.seed).permutation(len(numbers))[: 2 * k],
    }[settings.mode]
    kept = np.isin(label, numbers[chosen])
    sparse = np.where(kept, label, -1)
    background = np.zeros(label.shape, bool)
    if settings.background is Background.SHIFTED:
        y, x = np.nonzero(kept)
        background[np.clip(y - settings.distance, 0, None), np.clip(x - settings.distance, 0, None)] = True
    elif settings.background is Background.RING and kept.any():
        background = distance_transform_edt(~kept) <= settings.distance
    elif settings.background is Background.ALL and kept.any():
        background[:] = True
    sparse[background & (label == 0)] = 0
    return sparse


def seconds(call, *arguments) -> tuple[float, object]:
    began = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - began, result


def compare(pictures: Iterator[Picture]) -> tuple[np.ndarray, float, int, bool]:
    """Return seconds (TIMED x [ours, plain]), megapixels, the number of images, and whether all results are equal."""
    times = np.zeros((len(TIMED), 2))
    pixels, images, equal = 0, 0, True
    for image, label in pictures:
        images += 1
        pixels += label.size
        for row, settings in enumerate(TIMED):
            ours, sparse = seconds(sparsify, image, label, settings)
            theirs, expected = seconds(plain, image, label, settings)
            times[row] += ours, theirs
            equal &= bool(np.array_equal(sparse.label, expected))
        table = cell_table(image, label)
        for settings in COMPARED:
            expected = plain(image, label, settings, table)
            equal &= bool(np.array_equal(sparsify(image, label, settings).label, expected))
    return times, pixels / 1e6, images, equal


def peak_memory_mib(arguments: list[str]) -> float:
    """Return the peak resident memory of a new process that sparsifies all images one after the other."""
    command = [sys.executable, __file__, "--memory", *arguments]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DSB2018)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "sparsify.json")
    parser.add_argument("--memory", action="store_true", help="print this process's peak memory in MiB, time nothing")
    options = parser.parse_args()
    there = (options.data / "images").is_dir()
    pictures = real(options.data) if there else generated()
    if options.memory:
        for image, label in pictures:
            sparsify(image, label, TIMED[1])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return 0

    times, megapixels, images, equal = compare(pictures)
    report = {
        "seconds_per_megapixel": times[:, 0].sum() / len(TIMED) / megapixels,
        "speedup_over_regionprops": times[:, 1].sum() / times[:, 0].sum(),
        "peak_memory_mib": peak_memory_mib(["--data", str(options.data)]),
        "equal": equal,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")

    print(f"{images} {'real' if there else 'generated'} images, {megapixels:.1f} megapixels")
    print(f"{'mode':8}{'k':>5} {'background':12}{'ms/Mpx':>9}{'regionprops':>13}{'speed-up':>10}")
    for settings, (ours, theirs) in zip(TIMED, times / megapixels * 1e3, strict=True):
        name = f"{settings.mode.name:8}{settings.k:5} {settings.background.name:12}"
        print(f"{name}{ours:9.2f}{theirs:13.1f}{theirs / ours:9.1f}x")
    ours, theirs = times.mean(axis=0) / megapixels * 1e3
    print(f"{'all':26}{ours:9.2f}{theirs:13.1f}{theirs / ours:9.1f}x")
    print(f"peak memory {report['peak_memory_mib']:.0f} MiB; results {'equal' if equal else 'DIFFER'} -> {options.out}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
