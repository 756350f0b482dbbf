"""Which cells are kept: the selection modes, for one image and over a dataset."""

import hashlib
from collections.abc import Sequence
from enum import Enum

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Indices


class Mode(Enum):
    """Which cells are kept; the numbers are those of the proto's SelectionMode."""

    MIN = 1
    MAX = 2
    MINMAX = 3
    RANDOM = 4


def select(means: npt.NDArray[np.float64], *, mode: Mode, count: int, seed: int | list[int]) -> Indices:
    """Choose candidates by their mean intensity.

    MIN keeps the `count` darkest, MAX the `count` brightest, MINMAX the ceil(count / 2) darkest and the
    floor(count / 2) brightest, RANDOM the first `count` of a seeded permutation. Equal means go in the order given, in
    both directions. Where means tie, the darkest and the brightest of MINMAX may therefore be the same cells, and fewer
    than `count` are kept. With fewer than `count` candidates all are kept.

    Args:
        means: The candidates' mean intensities, in the order of their labels (over a dataset: of items, then labels).
        mode: The selection mode.
        count: Cells to keep, from 1.
        seed: Seed of RANDOM, as numpy.random.default_rng takes it.

    Returns:
        Indices into `means`, ascending.
    """
    if means.size < count:
        return np.arange(means.size)
    if mode is Mode.RANDOM:
        return np.sort(np.random.default_rng(seed).permutation(means.size)[:count])
    if mode is Mode.MIN:
        return np.sort(_darkest(means, count))
    if mode is Mode.MAX:
        return np.sort(_darkest(-means, count))
    return np.union1d(_darkest(means, count - count // 2), _darkest(-means, count // 2))


def _darkest(means: npt.NDArray[np.float64], count: int) -> Indices:
    """Return the indices of the `count` smallest means, the first ones among equals."""
    return np.argsort(means, kind="stable")[:count]


def budget(candidates: int, *, total_cells: int | None, total_percent: float | None) -> int:
    """Return the number of cells to keep of all candidates, from a number or a percentage (rounded half up, from 1)."""
    if total_cells is not None:
        return total_cells
    if total_percent is None:
        raise ValueError("a budget needs a number of cells or a percentage")
    return max(1, int(np.floor(candidates * total_percent / 100 + 0.5)))


def item_seed(seed: int, name: str) -> list[int]:
    """Return the seed of one item: it depends on the item's name alone, so adding an item changes no other's cells."""
    return [seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")]


def select_over(
    means: Sequence[npt.NDArray[np.float64]], *, mode: Mode, count: int, seed: int | list[int]
) -> list[Indices]:
    """Choose among the candidates of several items together; equal means go to the earlier item first.

    Args:
        means: For each item the mean intensities of its candidates, in the order of their labels.
        mode: The selection mode.
        count: Cells to keep of all items together, from 1.
        seed: Seed of RANDOM, as numpy.random.default_rng takes it.

    Returns:
        For each item the indices of its chosen candidates, ascending.
    """
    ends = np.cumsum([part.size for part in means], dtype=np.int64)
    chosen = select(np.concatenate([np.zeros(0), *means]), mode=mode, count=count, seed=seed)
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1])) if means else []
    return [part - (end - mean.size) for part, end, mean in zip(parts, ends.tolist(), means, strict=True)]
