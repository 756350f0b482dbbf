"""Scores of predicted against true label images: optimal matching on IoU, as `stardist.matching` defines it.

A predicted and a true cell may match when their intersection over union is at or above a threshold. Among all
one-to-one matchings the one with most such pairs is taken, and among those the one with the largest sum of IoUs.
Counts add up over images; ratios are taken from summed counts.

Agreement with `stardist.matching.matching_dataset(by_image=False)` is to the last bit, so IoUs, their comparison with
the threshold and their sums are float32 as there; 3/5 reaches a threshold of 0.6000000000000001.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from cellsparse_common.imaging.disk_array import BAND_BYTES, in_bands, release
from cellsparse_proto.v1 import common_pb2

Labels = npt.NDArray[np.integer[Any]]
_Numbering: TypeAlias = Callable[[Labels], npt.NDArray[np.int32]]
"""Gives labels other numbers."""

DEFAULT_IOUS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Thresholds that are scored by default."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Matches at one IoU threshold in one image, or summed over several."""

    iou: float
    """The threshold, above 0 to 1."""
    tp: int = 0
    """Matched cells."""
    fp: int = 0
    """Predicted cells without a match."""
    fn: int = 0
    """True cells without a match."""
    sum_matched_score: float = 0.0
    """Sum of the matched pairs' IoUs."""

    def __add__(self, other: "Counts") -> "Counts":
        if self.iou != other.iou:
            raise ValueError(f"Counts at IoU {self.iou} and {other.iou} do not add up.")
        return Counts(
            iou=self.iou,
            tp=self.tp + other.tp,
            fp=self.fp + other.fp,
            fn=self.fn + other.fn,
            sum_matched_score=float(np.float32(self.sum_matched_score) + np.float32(other.sum_matched_score)),
        )


@dataclass(frozen=True, kw_only=True)
class Score:
    """The fields of the message MatchingScore; every ratio is 0 where it is not defined."""

    iou: float
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float
    ap: float
    mean_matched_score: float
    mean_true_score: float
    pq: float

    def to_message(self) -> common_pb2.MatchingScore:
        """Return the score as its message."""
        return common_pb2.MatchingScore(**vars(self))


def match_counts(true: Labels, pred: Labels, ious: Sequence[float] = DEFAULT_IOUS) -> list[Counts]:
    """Match the cells of one image at several thresholds.

    Where `true` is -1 nothing is known: predicted cells with more than half of their pixels there are left out, all
    others are compared on the labelled pixels only.

    Args:
        true: Label image, axes YX: -1 not labelled, 0 background, n > 0 cell n.
        pred: Label image of the same shape: 0 background, n > 0 cell n.
        ious: Thresholds, above 0 to 1.

    Returns:
        One `Counts` per threshold.

    Raises:
        ValueError: Shapes differ, `pred` is negative somewhere, or a threshold is out of range.
    """
    if true.shape != pred.shape:
        raise ValueError(f"True labels of shape {true.shape} and predicted ones of {pred.shape} cannot be compared.")
    if pred.size and (lowest := min(int(rows.min()) for rows in in_bands(pred))) < 0:
        raise ValueError(f"Predicted labels hold {lowest}; allowed: 0 or more.")
    for iou in ious:
        if not 0 < iou <= 1:
            raise ValueError(f"An IoU threshold is {iou}; allowed: above 0 to 1.")
    overlap = _overlap(true, pred)
    return [_count(overlap, iou) for iou in ious]


def match_outlines(true: Labels, pred: Labels, ious: Sequence[float] = DEFAULT_IOUS) -> list[Counts]:
    """Match labelled cells of one image with predicted ones by their full outlines.

    A labelled cell is labelled as a whole, so its overlap with a predicted cell is exact even where that one reaches
    over unlabelled pixels: a cell predicted too large scores low, where `match_counts` sees its labelled part only.
    That is what choosing between models and thresholds needs. The same predicted cells are left out, those mostly on
    unlabelled pixels. On dense labels the two are equal.

    Args:
        true: As for `match_counts`.
        pred: As for `match_counts`.
        ious: Thresholds, above 0 to 1.

    Raises:
        ValueError: As `match_counts`.
    """
    if true.shape != pred.shape or (pred.size and pred.min() < 0):
        return match_counts(true, pred, ious)  # raises the right error
    cells, _ = _sequential(pred.ravel())
    pixels = np.bincount(cells)
    unlabelled = np.bincount(cells[true.ravel() < 0], minlength=len(pixels))
    judged = np.where(2 * unlabelled[cells] > pixels[cells], 0, cells).reshape(pred.shape)
    return match_counts(np.maximum(true, 0), judged, ious)


def scores(counts: Counts) -> Score:
    """Return the ratios of summed counts."""
    tp, fp, fn = counts.tp, counts.fp, counts.fn
    return Score(
        iou=counts.iou,
        tp=tp,
        fp=fp,
        fn=fn,
        precision=tp / (tp + fp) if tp else 0.0,
        recall=tp / (tp + fn) if tp else 0.0,
        f1=2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        ap=tp / (tp + fp + fn) if tp else 0.0,
        mean_matched_score=_mean(counts.sum_matched_score, tp),
        mean_true_score=_mean(counts.sum_matched_score, tp + fn),
        pq=_mean(counts.sum_matched_score, tp + fp / 2 + fn / 2),
    )


@dataclass(frozen=True, kw_only=True)
class _Overlap:
    """All pairs of a true and a predicted cell that share a pixel, ordered by true cell."""

    n_true: int
    n_pred: int
    true: npt.NDArray[np.int64]
    """The pair's true cell, from 0."""
    pred: npt.NDArray[np.int64]
    """The pair's predicted cell, from 0."""
    iou: npt.NDArray[np.float32]
    """The pair's intersection over union."""


def _overlap(true: Labels, pred: Labels) -> _Overlap:
    """Measure the overlaps on labelled pixels, some rows at a time; memory grows with cells and the pairs they make."""
    true_number, n_true = _numbering(true)
    number, n_pred = _judged(true, pred)
    areas_true, areas_pred = np.zeros(n_true + 1, np.int64), np.zeros(n_pred + 1, np.int64)
    keys: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)]
    counts: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)]
    for true_rows, pred_rows in _bands(true, pred):
        labelled = true_rows >= 0
        t, p = true_number(true_rows[labelled]), number(pred_rows[labelled])
        areas_true += np.bincount(t, minlength=n_true + 1)
        areas_pred += np.bincount(p, minlength=n_pred + 1)
        both = (t > 0) & (p > 0)
        key, count = np.unique(t[both].astype(np.int64) * (n_pred + 1) + p[both], return_counts=True)
        keys.append(key)
        counts.append(count)
    pairs, position = np.unique(np.concatenate(keys), return_inverse=True)
    shared = np.zeros(len(pairs), np.int64)
    np.add.at(shared, position, np.concatenate(counts))
    at_true, at_pred = np.divmod(pairs, n_pred + 1)
    union = areas_true[at_true] + areas_pred[at_pred] - shared
    return _Overlap(
        n_true=n_true, n_pred=n_pred, true=at_true - 1, pred=at_pred - 1, iou=(shared / union).astype(np.float32)
    )


def _judged(true: Labels, pred: Labels) -> tuple[_Numbering, int]:
    """Return the numbers 1..n of the predicted cells that are compared, by their labels, and n."""
    number, count = _numbering(pred)
    areas, unknown = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for true_rows, pred_rows in _bands(true, pred):
        p = number(pred_rows)
        areas += np.bincount(p, minlength=count + 1)
        unknown += np.bincount(p[true_rows < 0], minlength=count + 1)
    kept = (2 * unknown <= areas) & (unknown < areas)
    kept[0] = False
    again = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return lambda rows: again[number(rows)], int(kept.sum())


def _numbering(label: Labels) -> tuple[_Numbering, int]:
    """Return what renumbers labels 1..n in their order, all below 1 becoming 0, and n."""
    highest = max((int(rows.max()) for rows in in_bands(label) if rows.size), default=0)
    if highest > 4 * label.size:
        values = np.unique(np.concatenate([np.unique(rows[rows > 0]) for rows in in_bands(label)]))
        return lambda rows: np.where(rows > 0, np.searchsorted(values, rows) + 1, 0).astype(np.int32), len(values)
    present = np.zeros(max(highest, 0) + 1, bool)
    for rows in in_bands(label):
        present[rows[rows > 0]] = True
    lookup = np.where(present, np.cumsum(present), 0).astype(np.int32)
    return lambda rows: lookup[np.maximum(rows, 0)], int(present.sum())


def _bands(true: Labels, pred: Labels) -> Iterator[tuple[Labels, Labels]]:
    """Yield the same rows (or planes) of two images after each other, flattened."""
    step = max(1, BAND_BYTES // max(1, pred[:1].nbytes))
    for start in range(0, len(true), step):
        yield true[start : start + step].ravel(), pred[start : start + step].ravel()
        release(true)
        release(pred)


def _sequential(label: Labels) -> tuple[npt.NDArray[np.int32], int]:
    """Return labels (0 or more) renumbered 1..n in their order, 0 staying 0, and n."""
    if label.size == 0:
        return np.zeros(0, np.int32), 0
    highest = int(label.max())
    if highest > 4 * label.size:
        values, inverse = np.unique(label, return_inverse=True)
        offset = 0 if values[0] == 0 else 1
        return inverse.astype(np.int32) + np.int32(offset), len(values) - 1 + offset
    present = np.bincount(label, minlength=highest + 1) > 0
    present[0] = False
    lookup = np.where(present, np.cumsum(present), 0).astype(np.int32)
    return lookup[label], int(present.sum())


def _count(overlap: _Overlap, iou: float) -> Counts:
    """Match at one threshold."""
    threshold = np.float32(iou)
    matched = np.sort(_matched(overlap, threshold))
    tp = len(matched)
    mean_true = overlap.iou[matched].sum() / np.float32(max(overlap.n_true, 1))
    return Counts(
        iou=iou,
        tp=tp,
        fp=overlap.n_pred - tp,
        fn=overlap.n_true - tp,
        sum_matched_score=float(mean_true * np.float32(overlap.n_true)),  # rounded as the reference adds them up
    )


def _matched(overlap: _Overlap, threshold: np.float32) -> npt.NDArray[np.int64]:
    """Return the positions of the pairs that are matched at or above a threshold.

    A true cell without a partner takes its own column at no cost, so a full matching always exists and the
    problem stays sparse. Two pairs of one cell cannot both exceed 0.5, so from there on pairs below the threshold
    cannot take part in the optimum and are left away; below 0.5 they decide between matchings of equal size.
    """
    kept = np.flatnonzero(overlap.iou >= threshold) if threshold >= 0.5 else np.arange(len(overlap.iou))
    if len(kept) == 0:
        return kept
    rows, row = np.unique(overlap.true[kept], return_inverse=True)
    good = overlap.iou[kept] >= threshold
    weight = overlap.iou[kept] / np.float32(2 * min(overlap.n_true, overlap.n_pred))
    cost = 2.0 - good - weight.astype(np.float64)  # the offset of 2 is the same for every matching
    everyone = np.arange(len(rows))
    graph = csr_matrix(
        (
            np.concatenate([cost, np.full(len(rows), 2.0)]),
            (np.concatenate([row, everyone]), np.concatenate([overlap.pred[kept], overlap.n_pred + everyone])),
        ),
        shape=(len(rows), overlap.n_pred + len(rows)),
    )
    partner = np.full(len(rows), -1)
    at_row, at_column = min_weight_full_bipartite_matching(graph)
    partner[at_row] = at_column
    matched: npt.NDArray[np.int64] = kept[(partner[row] == overlap.pred[kept]) & good]
    return matched


def _mean(total: float, number: float) -> float:
    return float(np.float32(total) / np.float32(number)) if number else 0.0
