"""Click once into each of many cells of DSB2018 and compare what the prompter proposes with the cell.

Usage: python benchmarks/prompts.py [--data FOLDER] [--clicks N] [--seed N] [--look LOOK] [--out FILE] [--fit]. FOLDER
holds images/ and masks/ with equal file names (default: ../shared/data/dsb2018/val). Each click hits a random pixel of
a random cell that is at least two pixels from the nearest pixel outside, or the deepest of a smaller cell. The typical
diameter is once estimated from the image, as for a first click, and once the median of five other cells of the image,
as after five. "First" is the proposal shown first, "wheel" the best of those that the wheel offers. Milliseconds are
those of the prompter on the window that the gateway would fetch, of this thread on the processor and by the clock.

--look inverted shows the cells dark on a bright ground, --look stained as nuclei of a made stain in RGB (absorption of
haematoxylin over eosin of uneven strength, with noise): a check of polarity and colour, no replacement for real tissue.
With --fit, `prompts/coefficients.py` is printed, fitted on the clicks: use FOLDER .../train.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import tifffile
from scipy import ndimage

from cellsparse_common.imaging.classical.diameter import estimate_diameter
from cellsparse_common.imaging.classical.pixels import bright_cells, finite
from cellsparse_gateway.prompts.arrays import prompt_array
from cellsparse_gateway.prompts.candidates import REACH, candidates, view
from cellsparse_gateway.prompts.classical import WORKING
from cellsparse_gateway.prompts.features import NAMES, measure
from cellsparse_gateway.prompts.images import SEEN
from cellsparse_gateway.prompts.scale import shrunk
from cellsparse_gateway.prompts.types import best

ROOT = Path(__file__).resolve().parents[1]
DSB2018 = ROOT.parent / "shared" / "data" / "dsb2018" / "val"
ANNOTATED = 5


@dataclass(frozen=True)
class Click:
    image: np.ndarray
    label: np.ndarray
    number: int
    x: int
    y: int
    diameters: dict[str, float]


def stained(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (1, 99.8))
    grey = np.clip((image - low) / max(high - low, 1), 0, 1)
    rng = np.random.default_rng(0)
    ground = ndimage.gaussian_filter(rng.normal(size=grey.shape), 3)
    ground /= ground.std()
    density = [0.65 * grey + 0.07, 0.70 * grey + 0.25 + 0.06 * ground, 0.29 * grey + 0.12 + 0.04 * ground]
    colours = 255 * 10.0 ** -np.stack(density, axis=2)
    return np.clip(colours + rng.normal(0, 3, colours.shape), 0, 255).astype(np.uint8)


LOOKS = {"bright": lambda image: image, "inverted": np.invert, "stained": stained}


def pictures(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    paths = sorted((folder / "images").glob("*.tif"))
    if not paths:
        sys.exit(f"{folder}/images has no .tif file: give --data a folder with images/ and masks/")
    return [(tifffile.imread(path), tifffile.imread(folder / "masks" / path.name).astype(np.int32)) for path in paths]


def clicks(folder: Path, count: int, seed: int, look: str = "bright") -> Iterator[Click]:
    rng = np.random.default_rng(seed)
    found = [(LOOKS[look](image), label) for image, label in pictures(folder)]
    pool = [(index, number) for index, (_, label) in enumerate(found) for number in np.unique(label[label > 0])]
    for place in rng.permutation(len(pool))[:count]:
        index, number = pool[place]
        image, label = found[index]
        rows, columns = np.nonzero(label == number)
        top, left = rows.min() - 1, columns.min() - 1
        cell = np.pad((label == number)[top + 1 : rows.max() + 1, left + 1 : columns.max() + 1], 1)
        depth = ndimage.distance_transform_edt(cell)
        inner = np.argwhere(depth >= min(2.0, depth.max()))
        y, x = inner[rng.integers(len(inner))] + (top, left)
        areas = np.bincount(label.ravel())[1:]
        areas[number - 1] = 0
        others = areas[areas > 0]
        seen = image[max(0, y - SEEN) : y + SEEN, max(0, x - SEEN) : x + SEEN]
        diameters = {"estimated": estimate_diameter(seen)}
        if others.size:
            drawn = rng.choice(others, min(ANNOTATED, others.size), replace=False)
            diameters["annotated"] = float(np.median(2 * np.sqrt(drawn / np.pi)))
        yield Click(image, label, int(number), int(x), int(y), diameters)


def around(click: Click, reach: int) -> tuple[slice, slice]:
    return slice(max(0, click.y - reach), click.y + reach + 1), slice(max(0, click.x - reach), click.x + reach + 1)


def iou(mask: np.ndarray, place: tuple[slice, slice], click: Click) -> float:
    both = int((mask & (click.label[place] == click.number)).sum())
    return both / (int(mask.sum()) + int((click.label == click.number).sum()) - both)


def play(click: Click, diameter: float) -> tuple[float, float, float, float]:
    """Return IoU of the proposal shown first, the best IoU of all, and milliseconds: of the processor, by the clock."""
    rows, columns = around(click, int(np.ceil(2 * diameter)) + 4)
    window = click.image[rows, columns]
    begin, worked = time.perf_counter(), time.thread_time()
    proposals = prompt_array(
        window, [(click.x - columns.start + 0.5, click.y - rows.start + 0.5, True)], diameter=diameter
    )
    used, passed = 1000 * (time.thread_time() - worked), 1000 * (time.perf_counter() - begin)
    scores = []
    for each in proposals:
        height, width = each.mask.shape
        top, left = rows.start + each.y, columns.start + each.x
        place = slice(top, top + height), slice(left, left + width)
        scores.append(iou(each.mask, place, click) if each.mask.size else 0.0)
    return scores[best(proposals)], max(scores), used, passed


def report(folder: Path, count: int, seed: int, look: str) -> dict[str, dict[str, float]]:
    played = list(clicks(folder, count, seed, look))
    play(played[0], 20.0)
    rows = {}
    for name in ("estimated", "annotated"):
        results = np.array([play(each, each.diameters.get(name, each.diameters["estimated"])) for each in played])
        first, wheel, used, passed = results.T
        rows[name] = {
            "clicks": len(results),
            "first_mean_iou": float(first.mean()),
            "first_above_0.7": float((first >= 0.7).mean()),
            "wheel_mean_iou": float(wheel.mean()),
            "wheel_above_0.7": float((wheel >= 0.7).mean()),
            "processor_ms_median": float(np.median(used)),
            "processor_ms_p95": float(np.percentile(used, 95)),
            "clock_ms_median": float(np.median(passed)),
            "clock_ms_p95": float(np.percentile(passed, 95)),
        }
    return rows


def fit(folder: Path, count: int, seed: int, ridge: float = 1e-3) -> str:
    """Return the text of coefficients.py: features and their squares against the IoU, each click of the same weight."""
    tables, values, weights = [], [], []
    for index, click in enumerate(clicks(folder, count, seed)):
        diameter = list(click.diameters.values())[index % len(click.diameters)]
        rows, columns = around(click, int(np.ceil(REACH * diameter)) + 2)
        row, column = click.y - rows.start, click.x - columns.start
        plane = bright_cells(finite(click.image[rows, columns]), column + 0.5, row + 0.5, diameter)
        factor = max(1, int(diameter / WORKING))
        seen = view(shrunk(plane, factor), row // factor, column // factor, diameter / factor)
        if seen is None:
            continue
        masks = candidates(seen)
        features = measure(
            masks,
            seen.blurred,
            seen.row,
            seen.column,
            diameter=seen.diameter,
            background=seen.background,
            value=seen.value,
        )
        cell = shrunk((click.label[rows, columns] == click.number).astype(np.float32), factor) >= 0.5
        both = (masks & cell).sum((1, 2))
        size = int((click.label == click.number).sum()) / factor**2
        tables.append(np.concatenate([features, features**2], axis=1).astype(np.float64))
        values.append(both / (masks.sum((1, 2)) + size - both))
        weights.append(np.full(len(masks), 1 / len(masks)))
    table, weight = np.concatenate(tables), np.concatenate(weights)
    mean, spread = table.mean(0), table.std(0) + 1e-6
    table = np.column_stack([np.ones(len(table)), (table - mean) / spread])
    penalty = ridge * weight.sum() * np.diag([0.0] + [1.0] * len(mean))
    solved = np.linalg.solve(table.T @ (table * weight[:, None]) + penalty, table.T @ (weight * np.concatenate(values)))
    factors = solved[1:] / spread
    constant = solved[0] - float(factors @ mean)
    pairs = zip(NAMES, factors[: len(NAMES)], factors[len(NAMES) :], strict=True)
    body = "".join(f'    "{name}": ({first:.5g}, {second:.5g}),\n' for name, first, second in pairs)
    return f'''"""The ranking's only numbers that come from data: `benchmarks/prompts.py --fit` prints this file.

They are fitted on 3,000 clicks (seed 1) in the split `train` of DSB2018 (CC0) by least squares, so that the features of
a mask give its IoU.
"""

CONSTANT = {constant:.5g}
FACTORS = {{
{body}}}
"""For each of `features.NAMES`, the factor of its value and of its square."""
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DSB2018)
    parser.add_argument("--clicks", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--look", choices=list(LOOKS), default="bright")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "prompts.json")
    parser.add_argument("--fit", action="store_true", help="print coefficients fitted on the clicks")
    options = parser.parse_args()
    if options.fit:
        print(fit(options.data, options.clicks, options.seed), end="")
        return
    rows = report(options.data, options.clicks, options.seed, options.look)
    print("| diameter | first: mean IoU | >= 0.7 | wheel: mean IoU | >= 0.7 | ms, median | p95 | by the clock | p95 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        values = list(row.values())[1:]
        cells = [f"{value:.3f}" for value in values[:4]] + [f"{value:.0f}" for value in values[4:]]
        print(f"| {name} | {' | '.join(cells)} |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(
        json.dumps({"data": str(options.data), "seed": options.seed, "look": options.look, **rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
