"""Which star's probability belongs to which cell."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from stardist.geometry import polyhedron_to_label

from cellsparse_common.imaging.scores import Scores, cell_numbers
from cellsparse_common.imaging.types import Labels


def star_scores(labels: Labels, stars: Mapping[str, Any]) -> Scores:
    """Return the probability of each cell's star.

    A star that more probable ones cover wholly has no pixel, so it is no cell. In images its number is then missing.
    In stacks StarDist numbers the others again, so that the stars must be drawn once more to know which are left.

    Args:
        labels: What the stock model drew.
        stars: The stars of that drawing: probabilities, and of stacks distances, points and rays.
    """
    numbers = cell_numbers(labels)
    if labels.ndim == 3 and 0 < len(numbers) < len(stars["prob"]):
        shape, prob = labels.shape, stars["prob"]
        drawn = polyhedron_to_label(
            stars["dist"], stars["points"], rays=stars["rays"], prob=prob, shape=shape, verbose=False
        )
        numbers = cell_numbers(drawn)
    scores: Scores = np.asarray(stars["prob"], np.float32)[numbers - 1]
    return scores
