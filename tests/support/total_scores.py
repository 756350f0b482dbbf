"""Scores of several images, from the sum of their counts, as evaluation computes them."""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add

import numpy as np

from cellsparse_common.scoring.matching import DEFAULT_IOUS, Score, match_counts, scores


def total_scores(pairs: Iterable[tuple[np.ndarray, np.ndarray]], ious: Sequence[float] = DEFAULT_IOUS) -> list[Score]:
    """Return one score per threshold for (true, predicted) label images."""
    counts = [match_counts(true, pred, ious) for true, pred in pairs]
    return [scores(reduce(add, of_one_threshold)) for of_one_threshold in zip(*counts, strict=True)]
