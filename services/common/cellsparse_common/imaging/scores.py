"""How sure a model is of each cell that it found: a score from 0 to 1 per cell, in ascending order of the numbers."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.labels import without_small
from cellsparse_common.imaging.types import Floats, Labels

Scores: TypeAlias = npt.NDArray[np.float32]
"""One per cell, in ascending order of the cells' numbers, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """The cells of an image, and how sure the model is of each.

    Raises:
        ValueError: There is not one score per cell.
    """

    labels: Labels
    """Axes YX or ZYX: 0 background, n > 0 cell n; a number may be missing."""
    scores: Scores

    def __post_init__(self) -> None:
        cells = len(cell_numbers(self.labels))
        if self.scores.shape != (cells,):
            raise ValueError(f"There are {self.scores.size} scores for {cells} cells; allowed: one per cell.")

    def without_small(self, min_pixels: int) -> "Segmentation":
        """Remove cells of few pixels and number the rest 1, 2, ... in their order (see `labels.without_small`)."""
        areas = np.bincount(self.labels.ravel())
        kept = areas[cell_numbers(self.labels)] >= min_pixels
        return Segmentation(labels=without_small(self.labels, min_pixels), scores=self.scores[kept])


def cell_numbers(labels: Labels) -> npt.NDArray[np.int64]:
    """Return the numbers of the cells in ascending order.

    Args:
        labels: No value below 0; numbers about as small as there are cells.
    """
    there = np.bincount(labels.ravel()) > 0
    there[:1] = False
    return np.flatnonzero(there)


def mean_per_cell(labels: Labels, values: Floats) -> Scores:
    """Return the mean of the values at each cell's pixels, cut to 0 to 1.

    Args:
        labels: 0 background, n > 0 cell n.
        values: As many, such as probabilities that a pixel belongs to a cell.
    """
    inside = labels > 0
    numbers = labels[inside]
    areas = np.bincount(numbers, minlength=1)
    sums = np.bincount(numbers, weights=values[inside], minlength=1)
    found = np.flatnonzero(areas)
    means: Scores = np.clip(sums[found] / areas[found], 0, 1).astype(np.float32)
    return means
