"""The sparse-safe validation score that chooses the best checkpoint."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Labels
from cellsparse_common.scoring.matching import DEFAULT_IOUS, Counts, match_counts, scores
from cellsparse_trainer.contract import Model
from cellsparse_trainer.data.samples import Sample

MEASURE = "mean F1 over IoU 0.5 to 0.9"
"""Name of the score. Scores of checkpoints that have another name are not compared with it."""
IOUS = DEFAULT_IOUS
"""Thresholds of the score. F1 at 0.5 alone is the same for a rough outline and for a true one: a cell found with 1.4
times its diameter still reaches it. Each further threshold costs such cells a share of the score. The mean over many
thresholds also moves in small steps where a handful of cells is labelled."""


def validation_scores(model: Model, samples: Sequence[Sample]) -> dict[str, float]:
    """Score a model on labelled pixels only.

    Args:
        model: The current weights.
        samples: Where to look (see `validation.windows`); not empty.

    Returns:
        "score", the mean of F1 over `IOUS`; "f1", "precision" and "recall" at IoU 0.5; and "mean_true_score", the mean
        over true cells of the IoU matched there.
    """
    total = [Counts(iou=iou) for iou in IOUS]
    for sample in samples:
        counts = outline_counts(sample.label, model.predict(sample.image))
        total = [a + b for a, b in zip(total, counts, strict=True)]
    found = [scores(count) for count in total]
    return {
        "f1": found[0].f1,
        "precision": found[0].precision,
        "recall": found[0].recall,
        "mean_true_score": found[0].mean_true_score,
        "score": float(np.mean([each.f1 for each in found])),
    }


def outline_counts(true: Labels, pred: Labels) -> list[Counts]:
    """Match labelled cells with predicted ones by their full outlines, at every threshold of `IOUS`.

    A labelled cell is labelled as a whole, so its overlap with a predicted cell is exact even where that one reaches
    over unlabelled pixels. Which predicted cells may be false?

    - One that lies mostly on unlabelled pixels may be a cell that nobody labelled: it is left out.
    - One that covers more than half of a labelled cell claims to be that cell, wherever else it lies. Where it is far
      too large, it is false, and the labelled cell is missed: both cost.
    - Any other is false unless it matches.

    Args:
        true: Label image: -1 not labelled, 0 background, n > 0 cell n.
        pred: Label image of the same shape: 0 background, n > 0 cell n.
    """
    return match_counts(np.maximum(true, 0), np.where(_judged(true, pred), pred, 0), IOUS)


def _judged(true: Labels, pred: Labels) -> npt.NDArray[np.bool_]:
    """Return the pixels of the predicted cells that count."""
    names, cells = np.unique(pred, return_inverse=True)
    cells = cells.reshape(pred.shape)
    pixels = np.bincount(cells.ravel(), minlength=len(names))
    unlabelled = np.bincount(cells[true < 0], minlength=len(names))
    counts = 2 * unlabelled <= pixels
    true_names, true_cells = np.unique(np.maximum(true, 0), return_inverse=True)
    areas = np.bincount(true_cells.ravel(), minlength=len(true_names))
    pairs, shared = np.unique(true_cells.ravel() * len(names) + cells.ravel(), return_counts=True)
    at_true, at_pred = np.divmod(pairs, len(names))
    claims = (true_names[at_true] > 0) & (2 * shared > areas[at_true])
    counts[at_pred[claims]] = True
    counts[names == 0] = False
    return np.asarray(counts[cells])
