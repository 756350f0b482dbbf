"""The choice of method, thresholds and smoothing from sparse labels."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from cellsparse_common.imaging.types import Floats, Labels
from cellsparse_common.scoring.matching import Counts, scores
from cellsparse_trainer.training.scoring import IOUS, outline_counts
from cellsparse_unet.config import Config
from cellsparse_unet.instances import METHODS, Thresholds, default_thresholds, find_cells

CENTRE_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
CELL_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMOOTHINGS = (0.5, 1.0, 1.5, 2.0)
"""Sigmas in pixels by which centres are smoothed first."""
SMALLEST_SHARE = 0.25
"""Share of a small labelled cell's area below which a found cell is debris."""
METHOD_PRICE, CENTRE_PRICE, CELL_PRICE, SMOOTHING_PRICE = 0.05, 0.5, 0.3, 0.1
"""Score that leaving the defaults must gain: few cells are labelled, and false ones between them are not counted. Those
of thresholds are for a step of 1, that of the smoothing is for one pixel."""
DOUBT_CELLS = 20
"""Labelled cells by which these prices fall to 0.7 of themselves; with four times as many labelled, nearly to half."""
MARGIN = 32
"""Voxels around the labelled ones of a stack in which cells are looked for."""


def best_thresholds(config: Config, items: Iterable[tuple[Floats, Labels]]) -> Thresholds:
    """Try methods and thresholds on labelled pixels.

    Args:
        config: Settings of the training; a method or threshold that they fix is not changed.
        items: Probabilities (float32 (3, ...)) and true labels (int32, -1 not labelled) of each image or stack.

    Returns:
        The defaults, or what scores clearly better in the mean F1 that chooses the best checkpoint; cells far smaller
        than the labelled ones are left out.
    """
    start = default_thresholds(config)
    choices = _choices(config, start)
    totals = [[Counts(iou=iou) for iou in IOUS] for _ in choices]
    areas: list[int] = []
    for probability, label in map(_around_labels, items):
        sizes = np.unique(label[label > 0], return_counts=True)[1]
        areas += sizes.tolist()
        if len(sizes):
            for n, choice in enumerate(choices):
                found = outline_counts(label, find_cells(probability, choice))
                totals[n] = [a + b for a, b in zip(totals[n], found, strict=True)]
    if not areas:
        return start
    # The more cells are labelled, the less a better score is chance.
    doubt = 1 / np.sqrt(1 + len(areas) / DOUBT_CELLS)
    points = [
        float(np.mean([scores(each).f1 for each in total])) - doubt * _price(choice, start)
        for total, choice in zip(totals, choices, strict=True)
    ]
    return replace(_best(choices, points), smallest_cell=int(SMALLEST_SHARE * np.quantile(areas, 0.1)))


def _around_labels(
    item: tuple[Floats, Labels],
) -> tuple[Floats, Labels]:
    """Cut off the voxels of a stack that lie far from all labelled ones: they cost time and are not scored."""
    probability, label = item
    labelled = np.nonzero(label >= 0)
    if label.ndim == 2 or not len(labelled[0]):
        return item
    part = tuple(slice(max(0, at.min() - MARGIN), at.max() + 1 + MARGIN) for at in labelled)
    return probability[:, *part], label[part]


def _choices(config: Config, start: Thresholds) -> list[Thresholds]:
    """Return the default, which wins a tie, and what differs from it in one value, or in method and centres.

    Where targets have the cells' own shape, ellipses are no choice: they would only lose it.
    """
    centres = CENTRE_THRESHOLDS if config.centre_threshold is None else (start.centre_threshold,)
    free = config.instance_method == "auto" and config.target_shape == "ellipse"
    methods = METHODS if free else (start.method,)
    cells = CELL_THRESHOLDS if start.method == "watershed" else ()
    smoothings = SMOOTHINGS if config.centre_smoothing is None else ()
    others = (
        *(replace(start, method=method, centre_threshold=centre) for method in methods for centre in centres),
        *(replace(start, cell_threshold=cell) for cell in cells),
        *(replace(start, centre_smoothing=smoothing) for smoothing in smoothings),
    )
    return list(dict.fromkeys((start, *others)))


def _best(choices: Sequence[Thresholds], points: Sequence[float]) -> Thresholds:
    """Return the best choice; with the default's method, the best centre threshold or smoothing and cell threshold.

    Centres decide which cells there are, the cell threshold how far they reach: they are chosen one by one. Centre
    threshold and smoothing do alike, so only one of them leaves its default.
    """
    start, best = choices[0], choices[int(np.argmax(points))]
    if best.method != start.method:
        return best
    own = [(point, choice) for point, choice in zip(points, choices, strict=True) if choice.method == start.method]
    centres = [(point, each) for point, each in own if each.cell_threshold == start.cell_threshold]
    cells = [(point, each) for point, each in own if replace(each, cell_threshold=start.cell_threshold) == start]
    (_, centre), (_, cell) = (max(line, key=lambda pair: pair[0]) for line in (centres, cells))
    return replace(centre, cell_threshold=cell.cell_threshold)


def _price(thresholds: Thresholds, start: Thresholds) -> float:
    centre = abs(thresholds.centre_threshold - start.centre_threshold)
    cell = abs(thresholds.cell_threshold - start.cell_threshold)
    smoothing = abs(thresholds.centre_smoothing - start.centre_smoothing)
    other = METHOD_PRICE * (thresholds.method != start.method)
    return other + CENTRE_PRICE * centre + CELL_PRICE * cell + SMOOTHING_PRICE * smoothing
