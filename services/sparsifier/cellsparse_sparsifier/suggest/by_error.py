"""With a model: where it is probably wrong, on cells unlike those that are labelled.

A prediction that changes when the image is turned is a guess (arXiv 2211.10244); a blob that only the detector sees, or
a cell that only the model sees, is probably an error. A batch of the worst errors would be alike, so each choice also
counts how far it is from all cells that are labelled or chosen (greedy k-centre). With few labelled cells a model errs
everywhere: then being typical counts instead.
"""

import numpy as np

from cellsparse_sparsifier.suggest.candidates import Seen
from cellsparse_sparsifier.suggest.pool import Choice, Pool
from cellsparse_sparsifier.suggest.space import Points

MISMATCH = 0.5
"""Error that a candidate which only the model or only the detector sees has beside its disagreement."""
FEW, MANY = 8, 64
"""Up to `FEW` labelled cells only being typical counts, from `MANY` only the error; between them both."""
TRUST = 0.1
"""How much being typical counts for a candidate that only the model sees, where few cells are labelled: such a model
sees what is not there."""
LEAST = 0.05
"""Error of a candidate on which all agree: it is still worth something where it is unlike all others."""

FARTHEST = 100.0
"""Distance where nothing is labelled or chosen yet."""


def errors(pool: Pool) -> Points:
    """Return the error to expect of each candidate, from `LEAST` to 1."""
    worst = 1 + MISMATCH
    result: Points = np.maximum((pool.disagreement + MISMATCH * pool.mismatch) / worst, LEAST)
    return result


def error_weight(labelled: int) -> float:
    """Return how much the error counts, 0 to 1, for a number of labelled cells."""
    return float(np.clip(np.log2(max(labelled, 1) / FEW) / np.log2(MANY / FEW), 0, 1))


def choose_by_error(pool: Pool, count: int, labelled: int) -> Choice:
    """Choose candidates greedily: error ^ a x typicality ^ (1 - a) x distance to what is labelled or chosen.

    Args:
        pool: The candidates.
        count: How many to choose.
        labelled: Cells that are labelled in all images, also in those that are not in the pool; it decides a.
    """
    choice = Choice(pool=pool)
    if not len(pool):
        return choice
    error, weight = errors(pool), error_weight(labelled)
    typical = pool.typical * np.where([pool.seen(index) is Seen.MODEL for index in range(len(pool))], TRUST, 1.0)
    worth = error**weight * typical ** (1 - weight)
    distance = np.full(len(pool), np.inf)
    for point in pool.labelled:
        distance = np.minimum(distance, np.linalg.norm(pool.points - point, axis=1))
    while len(choice.chosen) < count:
        free = choice.open()
        if not free.any():
            break
        # Equal points have distance 0, and all are far where nothing is labelled: their worth still orders them.
        score = np.where(free, worth * np.minimum(distance + 1e-3, FARTHEST), -1.0)
        index = int(score.argmax())
        choice.take(index, _reason(pool, index, distance[index], weight), error[index])
        distance = np.minimum(distance, np.linalg.norm(pool.points - pool.points[index], axis=1))
    return choice


def _reason(pool: Pool, index: int, distance: float, weight: float) -> str:
    seen = pool.seen(index)
    if seen is Seen.DETECTOR:
        return "The model finds no such cell here, but something stands out from its surroundings."
    if seen is Seen.MODEL:
        return "The model finds a cell here, but nothing stands out from the surroundings."
    disagreement = float(pool.disagreement[index])
    if not np.isfinite(distance):
        return "Typical of many other cells."
    if weight < 0.5 or disagreement < 0.1:
        return f"Unlike the cells that are marked so far (distance {distance:.1f}), and typical of many others."
    return f"The outline changes when the image is turned: the predictions disagree by {disagreement:.2f}."
