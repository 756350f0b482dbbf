"""When a polygon is a cell: thresholds, and the choice of them from sparse labels.

With few labelled pixels almost nothing punishes false cells, so the best score alone drifts to thresholds that find too
many. StarDist's defaults are therefore kept unless others are clearly better, and of several equally good ones the
nearest to the defaults wins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cellsparse_common.imaging.types import GrayImage, Labels
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
CHOICES = [Thresholds(prob=prob, nms=nms) for prob in (0.4, 0.5, 0.6, 0.7) for nms in (0.3, 0.4, 0.5)]
IOUS = (0.3, 0.5, 0.7)
"""IoU thresholds whose mean F1 is the score, as in StarDist's own tuning."""
PRICE = 0.3
"""Score that a threshold must gain for each 1.0 it moves away from the default."""
MAX_SAMPLES = 16
"""Most samples that are used, to bound the time."""

Predict = Callable[[GrayImage, Sequence[Thresholds]], list[Labels]]
"""Segments one image at several thresholds."""


def best_thresholds(samples: Sequence[Sample], predict: Predict) -> Thresholds:
    """Choose thresholds on labelled pixels only; predicted cells mostly on unlabelled pixels do not count.

    Args:
        samples: Validation (or training) samples; the first `MAX_SAMPLES` are used.
        predict: Segments one image at several thresholds.

    Returns:
        The best of `CHOICES`; `DEFAULT` if nothing is labelled.
    """
    totals = [[Counts(iou=iou) for iou in IOUS] for _ in CHOICES]
    for i in range(min(len(samples), MAX_SAMPLES)):
        sample = samples[i]
        for j, found in enumerate(predict(sample.image, CHOICES)):
            counts = match_outlines(sample.label, found, IOUS)
            totals[j] = [a + b for a, b in zip(totals[j], counts, strict=True)]
    if not any(total.tp for row in totals for total in row):
        return DEFAULT
    values = [
        float(np.mean([scores(total).f1 for total in row])) - _price(choice)
        for row, choice in zip(totals, CHOICES, strict=True)
    ]
    best = max(values)
    # Rounded, so that a tie in counts is not broken by the last bit of a mean.
    ties = [choice for choice, value in zip(CHOICES, values, strict=True) if best - value < 1e-9]
    return min(ties, key=_price)


def _price(choice: Thresholds) -> float:
    return PRICE * (abs(choice.prob - DEFAULT.prob) + abs(choice.nms - DEFAULT.nms))
