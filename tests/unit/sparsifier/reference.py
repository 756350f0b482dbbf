"""The definition of semantics.md "Selection", written once more in the plainest way: the judge of the fast version."""

from fractions import Fraction

import numpy as np
from skimage.measure import regionprops


def candidates(label: np.ndarray) -> list[int]:
    """Cells with a minor axis above zero, by exact rational second moments."""
    found = []
    for number in np.unique(label[label > 0]):
        y, x = (axis.astype(object) for axis in np.nonzero(label == number))
        n = len(y)
        yy = n * (y * y).sum() - y.sum() ** 2
        xx = n * (x * x).sum() - x.sum() ** 2
        xy = n * (x * y).sum() - x.sum() * y.sum()
        if yy * xx != xy * xy:
            found.append(int(number))
    return found


def candidates_regionprops(label: np.ndarray) -> list[int]:
    """Cells with a minor axis above zero, as scikit-image computes it."""
    return [region.label for region in regionprops(np.maximum(label, 0)) if region.axis_minor_length > 0]


def means(image: np.ndarray, label: np.ndarray, numbers: list[int]) -> dict[int, Fraction]:
    """Exact means of integer images over cells and channels."""
    image = image.reshape(*label.shape, -1)
    pixels = {n: [int(value) for value in image[label == n].flat] for n in numbers}
    return {n: Fraction(sum(values), len(values)) for n, values in pixels.items()}


def select(mean: dict[int, Fraction], mode: str, count: int, seed: int = 0) -> set[int]:
    dark = sorted(mean, key=lambda n: (mean[n], n))
    bright = sorted(mean, key=lambda n: (-mean[n], n))
    if len(mean) < count:
        return set(mean)
    if mode == "MIN":
        return set(dark[:count])
    if mode == "MAX":
        return set(bright[:count])
    if mode == "MINMAX":
        return set(dark[: (count + 1) // 2]) | set(bright[: count // 2])
    order = np.random.default_rng(seed).permutation(len(mean))
    return {sorted(mean)[i] for i in order[:count]}


def background(label: np.ndarray, kept: set[int], rule: str, distance: int) -> set[tuple[int, int]]:
    """Coordinates of the kept background."""
    if not kept or rule == "NONE":
        return set()
    zero = {(int(y), int(x)) for y, x in np.argwhere(label == 0)}
    cells = np.argwhere(np.isin(label, list(kept)))
    if rule == "ALL":
        return zero
    if rule == "SHIFTED":
        return {(int(y), int(x)) for y, x in np.clip(cells - distance, 0, None)} & zero
    offsets = range(-distance, distance + 1)
    disc = [(dy, dx) for dy in offsets for dx in offsets if dy * dy + dx * dx <= distance * distance]
    return {(y + dy, x + dx) for y, x in cells.tolist() for dy, dx in disc} & zero


def sparsify(image, label, *, mode, count, rule, distance, seed=0, mean=None):
    """The sparse label image and the kept labels; `mean` (of the candidates) where it is known already."""
    kept = select(means(image, label, candidates(label)) if mean is None else mean, mode, count, seed)
    sparse = np.full(label.shape, -1, np.int64)
    for number in kept:
        sparse[label == number] = number
    for y, x in background(label, kept, rule, distance):
        sparse[y, x] = 0
    return sparse, sorted(kept)
