"""Method and thresholds that do best on labelled pixels."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cellsparse_common.scoring.matching import Counts, match_outlines, scores
from cellsparse_unet.config import Config
from cellsparse_unet.instances import METHODS, Cut, cells

DEFAULT_CENTRE = 0.4
CENTRE_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
CELL_THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
IOUS = (0.5, 0.6, 0.7)
SMALLEST_SHARE = 0.25  # of a small labelled cell's area: what is smaller is debris
# A labelled cell is outlined all around, the background beside it on one side only: even odds give outlines too wide.
CELL_ODDS = 2.0
# Few cells are labelled and false ones between them go unseen, so a choice must pay for leaving the defaults.
METHOD_PRICE, THRESHOLD_PRICE = 0.05, 0.3
MARGIN = 32  # voxels around the labelled ones of a stack in which cells are looked for


def default_cut(config: Config) -> Cut:
    """Thresholds to use before tuning.

    Args:
        config: Settings of the training.

    Returns:
        What the settings fix, and defaults for the rest.
    """
    weights = config.class_weights
    # Weighting a class tilts the odds that the network learns: this is where they were CELL_ODDS.
    odds = CELL_ODDS * weights[1] / weights[0]
    return Cut(
        method="ellipse" if config.instance_method == "ellipse" else "watershed",
        centre_threshold=DEFAULT_CENTRE if config.centre_threshold is None else config.centre_threshold,
        cell_threshold=float(np.clip(odds / (1 + odds), 0.05, 0.99)),
        centre_scale=config.centre_scale,
        centre_smoothing=config.centre_smoothing,
        smallest_cell=0,
        plane_distance=config.plane_distance,
    )


def best_cut(config: Config, items: Iterable[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]]) -> Cut:
    """Tries methods and thresholds on labelled pixels.

    Args:
        config: Settings of the training; a method or threshold that they fix is not changed.
        items: Probabilities (float32 (3, ...)) and true labels (int32, -1 not labelled) of each image or stack.

    Returns:
        The defaults, or what scores clearly better in mean F1 over IoU 0.5 to 0.7; cells far smaller than the labelled
        ones are left out.
    """
    start = default_cut(config)
    choices = _choices(config, start)
    totals = [[Counts(iou=iou) for iou in IOUS] for _ in choices]
    areas: list[int] = []
    for probability, label in map(_around_labels, items):
        sizes = np.unique(label[label > 0], return_counts=True)[1]
        areas += sizes.tolist()
        if len(sizes):
            for n, choice in enumerate(choices):
                found = match_outlines(label, cells(probability, choice), IOUS)
                totals[n] = [a + b for a, b in zip(totals[n], found, strict=True)]
    if not areas:
        return start
    points = [
        float(np.mean([scores(each).f1 for each in total])) - _price(choice, start)
        for total, choice in zip(totals, choices, strict=True)
    ]
    return replace(choices[int(np.argmax(points))], smallest_cell=int(SMALLEST_SHARE * np.quantile(areas, 0.1)))


def _around_labels(
    item: tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Cuts off what lies far from all labelled voxels of a stack: it costs time and tells nothing."""
    probability, label = item
    labelled = np.nonzero(label >= 0)
    if label.ndim == 2 or not len(labelled[0]):
        return item
    part = tuple(slice(max(0, at.min() - MARGIN), at.max() + 1 + MARGIN) for at in labelled)
    return probability[:, *part], label[part]


def _choices(config: Config, start: Cut) -> list[Cut]:
    """All cuts that the settings leave open; the default first, so that it wins a tie."""
    methods = METHODS if config.instance_method == "auto" else (start.method,)
    centres = CENTRE_THRESHOLDS if config.centre_threshold is None else (start.centre_threshold,)
    others = (
        replace(start, method=method, centre_threshold=centre, cell_threshold=cell)
        for method in methods
        for centre in centres
        for cell in (CELL_THRESHOLDS if method == "watershed" else (start.cell_threshold,))
    )
    return [start, *others]


def _price(cut: Cut, start: Cut) -> float:
    moved = abs(cut.centre_threshold - start.centre_threshold) + abs(cut.cell_threshold - start.cell_threshold)
    return METHOD_PRICE * (cut.method != start.method) + THRESHOLD_PRICE * moved
