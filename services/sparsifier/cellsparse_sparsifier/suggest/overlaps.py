"""How well the cells of one label image agree with those of another."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Labels

Numbers = npt.NDArray[np.float64]


def best_overlaps(label: Labels, other: Labels) -> tuple[Numbers, Numbers]:
    """Compare each cell of a label image with all of another one.

    Args:
        label: YX, 0 background, 1 ... n the cells.
        other: YX of the same shape, 0 background.

    Returns:
        For each cell 1 ... n the best IoU with a cell of `other`, and the share of its pixels that are in any of them.
    """
    count = int(label.max(initial=0))
    mine = np.bincount(label.ravel(), minlength=count + 1).astype(np.float64)
    theirs = np.bincount(np.maximum(other, 0).ravel()).astype(np.float64)
    both = (label > 0) & (other > 0)
    pairs, shared = np.unique(label[both].astype(np.int64) * theirs.size + other[both], return_counts=True)
    cells, others = np.divmod(pairs, theirs.size)
    best, covered = np.zeros(count + 1), np.zeros(count + 1)
    np.maximum.at(best, cells, shared / (mine[cells] + theirs[others] - shared))
    np.add.at(covered, cells, shared)
    return best[1:], covered[1:] / np.maximum(mine[1:], 1)


def disagreement(label: Labels, others: Sequence[Labels]) -> Numbers:
    """Return for each cell 1 ... n of a label image 1 - its mean best IoU with the cells of the others, 0 to 1.

    Zeros without others.
    """
    if not others:
        return np.zeros(int(label.max(initial=0)))
    result: Numbers = 1 - np.mean([best_overlaps(label, other)[0] for other in others], axis=0)
    return result
