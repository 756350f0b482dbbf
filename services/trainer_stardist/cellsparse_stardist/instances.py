"""When a polygon is a cell: thresholds, and the choice of them from sparse labels.

With few labelled pixels almost nothing punishes false cells, so the best score alone drifts to thresholds that find too
many. The choice therefore starts at a higher probability than StarDist's default, and stays there unless others are
clearly better. Of several equally good ones the nearest to the start wins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cellsparse_common.imaging.types import Floats, Labels
from cellsparse_common.scoring.matching import Counts, match_outlines, scores
from cellsparse_trainer.data.samples import Sample


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When a polygon is a cell."""

    prob: float
    """Smallest probability, 0 to 1."""
    nms: float
    """Largest overlap (IoU) with a more probable cell, 0 to 1."""

    def to_dict(self) -> dict[str, float]:
        """Return both by name, as the stock tool keeps them."""
        return {"prob": self.prob, "nms": self.nms}


DEFAULT = Thresholds(prob=0.5, nms=0.4)
"""StarDist's own."""
START = Thresholds(prob=0.65, nms=0.4)
"""Where the choice starts."""
CHOICES = [Thresholds(prob=prob, nms=nms) for prob in (0.45, 0.55, 0.65, 0.75) for nms in (0.3, 0.4, 0.5)]
IOUS = (0.3, 0.5, 0.7)
"""IoU thresholds whose mean F1 is the score, as in StarDist's own tuning."""
PRICE = 0.6
"""Score that a threshold must gain for each 1.0 it moves away from the start."""

SIZE_LIMITS = (0.8, 1.25)
"""How far rays may shrink or grow."""
SIZE_DOUBT = 4
"""Number of found cells at which half of what they show is believed (on a logarithmic scale)."""

Predict = Callable[[Floats, Sequence[Thresholds]], list[Labels]]
"""Segments one image at several thresholds."""


def best_thresholds(samples: Sequence[Sample], predict: Predict) -> Thresholds:
    """Choose thresholds on labelled pixels only; predicted cells mostly on unlabelled pixels do not count.

    Args:
        samples: Validation (or training) samples.
        predict: Segments one image at several thresholds.

    Returns:
        The best of `CHOICES`; `START` if nothing is labelled.
    """
    totals = [[Counts(iou=iou) for iou in IOUS] for _ in CHOICES]
    for sample in samples:
        for j, found in enumerate(predict(sample.image, CHOICES)):
            counts = match_outlines(sample.label, found, IOUS)
            totals[j] = [a + b for a, b in zip(totals[j], counts, strict=True)]
    if not any(total.tp for row in totals for total in row):
        return START
    values = [
        float(np.mean([scores(total).f1 for total in row])) - _price(choice)
        for row, choice in zip(totals, CHOICES, strict=True)
    ]
    best = max(values)
    # Rounded, so that a tie in counts is not broken by the last bit of a mean.
    ties = [choice for choice, value in zip(CHOICES, values, strict=True) if best - value < 1e-9]
    return min(ties, key=_price)


def size_factor(samples: Sequence[Sample], predict: Callable[[Floats], Labels]) -> float:
    """Return by what factor rays have to grow so that half of the labelled cells are found too large, half too small.

    A network that has not learnt enough about directions makes cells round, and round cells of the right mean ray are
    too small. Labelled cells are labelled as a whole, so few of them show by how much.

    Args:
        samples: Validation (or training) samples.
        predict: Segments one image.

    Returns:
        The factor, within `SIZE_LIMITS`; nearer to 1 the fewer labelled cells are found.
    """
    ratios: list[float] = []
    for sample in samples:
        ratios += _size_ratios(sample.label, predict(sample.image))
    if not ratios:
        return 1.0
    trust = len(ratios) / (len(ratios) + SIZE_DOUBT)
    return float(np.clip(np.median(ratios) ** trust, *SIZE_LIMITS))


def _size_ratios(true: Labels, found: Labels) -> list[float]:
    """Return the ratios of the true size along an axis to the found one, of labelled cells found at an IoU of 0.5."""
    ids, owner = np.unique(np.maximum(true, 0), return_inverse=True)
    pairs, shared = np.unique(owner.ravel() * (int(found.max()) + 1) + found.ravel(), return_counts=True)
    one, other = np.divmod(pairs, int(found.max()) + 1)
    area_true, area_found = np.bincount(owner.ravel(), minlength=len(ids)), np.bincount(found.ravel())
    union = area_true[one] + area_found[other] - shared
    good = (ids[one] > 0) & (other > 0) & (2 * shared > union)
    return list((area_true[one[good]] / area_found[other[good]]) ** (1 / true.ndim))


def _price(choice: Thresholds) -> float:
    return PRICE * (abs(choice.prob - START.prob) + abs(choice.nms - START.nms))
