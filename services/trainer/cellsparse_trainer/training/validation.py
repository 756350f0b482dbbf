"""Where a training looks to choose its best checkpoint: windows around labelled cells, spread over the items.

Whole images would cost far more: with two labelled cells in each, nearly all of their pixels say nothing. The windows
are chosen once, before the first step. They depend on the labels, the plan and the seed only, so that every attempt of
a run, on whatever machine, validates on the same pixels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cellsparse_common.imaging.disk_array import BAND_BYTES, in_bands
from cellsparse_common.imaging.types import Labels
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.data.parts import Box, cell_boxes, cut_part
from cellsparse_trainer.data.samples import Sample

SHARE = 0.2
"""Pixels of a validation over those of the crops trained on since the one before. Predicting a pixel takes less time
than training on it, so validation should stay under a tenth of the whole."""
FEWEST_PIXELS = 2**18
"""Pixels that a validation may take in any case: four images of 256 x 256."""
MOST_ITEMS = 64
"""Items that are looked at."""
EDGE = 8
"""Pixels at a window's border that are not judged: the network sees nothing beyond it."""
MULTIPLE = 16
"""Windows have sides of a multiple of this, where the image is large enough."""
SIZE_PERCENTILE = 90.0
"""Percentile of the labelled cells' extents that windows are made for."""
BACKGROUND_TURN = 4
"""Of so many windows of an item one lies on labelled background, where there is some."""


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A validation item and its labelled cells."""

    index: int
    sample: Sample
    boxes: Sequence[Box]
    """Bounding boxes of the labelled cells, in an order drawn at random."""


def windows(samples: Sequence[Sample], plan: Plan, pixels: int | None = None) -> list[Sample]:
    """Return parts of validation items around labelled cells and on labelled background.

    Items take turns, so that a few windows show many items. Cells that a window cuts are not labelled in it. Small
    items are taken whole.

    Args:
        samples: Validation items, not empty; at most `MOST_ITEMS` of them, at equal distances, are read.
        plan: Gives the size of crops, the steps between validations, and the seed.
        pixels: Most pixels of all windows together, but for the first; None: those of a validation.
    """
    budget = allowed_pixels(plan) if pixels is None else pixels
    chosen = np.linspace(0, len(samples) - 1, min(len(samples), MOST_ITEMS)).round().astype(int)
    items = [_look(int(index), samples[int(index)], plan.seed) for index in chosen]
    size = _window_size([box for item in items for box in item.boxes], plan, items[0].sample.label.ndim)
    turns = [_turns(item, size, budget // len(items), plan.seed) for item in items]
    found: list[Sample] = []
    while turns:
        remaining = []
        for turn in turns:
            window = next(turn, None)
            if window is None:
                continue
            if found and window.label.size > budget:
                return found
            budget -= window.label.size
            found.append(window)
            remaining.append(turn)
        turns = remaining
    return found


def allowed_pixels(plan: Plan) -> int:
    """Return how many pixels a validation may look at."""
    crop = plan.crop_size**2 * (plan.crop_depth or 1)
    return max(FEWEST_PIXELS, int(SHARE * plan.validate_every * plan.crops_per_step * crop))


def _look(index: int, sample: Sample, seed: int) -> _Item:
    boxes = cell_boxes(sample.label)
    order = np.random.default_rng([seed, index, 0]).permutation(len(boxes))
    return _Item(index=index, sample=sample, boxes=[boxes[at] for at in order])


def _window_size(boxes: Sequence[Box], plan: Plan, axes: int) -> tuple[int, ...]:
    """Return the sides of a window, equal along Y and X: a crop's, or twice the extent of all but the largest cells."""
    if not boxes:
        extents = np.zeros(axes)
    else:
        extents = np.percentile([[side.stop - side.start for side in box] for box in boxes], SIZE_PERCENTILE, axis=0)
    extents[-2:] = extents[-2:].max()
    crop = (plan.crop_size,) * 2 if axes == 2 else (plan.crop_depth or 1, plan.crop_size, plan.crop_size)
    sides = [max(side, 2 * float(extent) + 2 * EDGE) for side, extent in zip(crop, extents, strict=True)]
    return tuple(math.ceil(side / MULTIPLE) * MULTIPLE for side in sides)


def _turns(item: _Item, size: Sequence[int], share: int, seed: int) -> Iterator[Sample]:
    """Yield the windows of an item, one on each turn, until they show all of its cells; all of it if it is small."""
    shape = item.sample.label.shape
    if math.prod(shape) <= max(share, math.prod(size)):
        yield item.sample
        return
    rng = np.random.default_rng([seed, item.index, 1])
    left = list(item.boxes)
    background = _Background(item.sample.label)
    turn = 0
    while left or (turn == 0 and background.size):
        turn += 1
        if background.size and (not left or turn % BACKGROUND_TURN == 0):
            at = np.unravel_index(background[int(rng.integers(background.size))], shape)
            around: Box = tuple(slice(int(one), int(one) + 1) for one in at)
        else:
            around = left.pop(0)
        window = _place(around, size, shape)
        left = [box for box in left if not _shows(window, box, shape)]
        yield cut_part(item.sample, window, EDGE)


class _Background:
    """The flat indices of an image's background pixels, ascending, without a list of them."""

    def __init__(self, label: Labels) -> None:
        self._label = label
        self._step = max(1, BAND_BYTES // max(1, label[:1].nbytes))
        self._ends = np.cumsum([np.count_nonzero(rows == 0) for rows in in_bands(label)])
        self.size = int(self._ends[-1])

    def __getitem__(self, at: int) -> int:
        band = int(np.searchsorted(self._ends, at, side="right"))
        before = int(self._ends[band - 1]) if band else 0
        start = band * self._step
        inside = np.flatnonzero(self._label[start : start + self._step] == 0)
        return int(start * self._label[0].size + inside[at - before])


def _place(around: Box, size: Sequence[int], shape: Sequence[int]) -> Box:
    """Return the window with a box in its middle, moved into the image where it reaches beyond it."""
    window = []
    for box, side, length in zip(around, size, shape, strict=True):
        extent = min(length, max(side, box.stop - box.start + 2 * EDGE))
        start = (box.start + box.stop - extent) // 2
        start = max(0, min(start, length - extent))
        window.append(slice(start, start + extent))
    return tuple(window)


def _shows(window: Box, box: Box, shape: Sequence[int]) -> bool:
    """Whether a window shows a whole cell, off those of its borders that are not the image's."""
    return all(
        (whole.start == 0 or whole.start + EDGE <= part.start)
        and (whole.stop == length or part.stop <= whole.stop - EDGE)
        for whole, part, length in zip(window, box, shape, strict=True)
    )
