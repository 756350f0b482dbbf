"""Large 2D images: segmented window by window within bounded memory, the cells joined without seams.

Windows overlap by more than a cell and all that decides about it. A cell that two windows see is the same in both, and
belongs to the one whose own part, without the overlap, holds the middle of the cell's bounding box. What a network
takes from the whole image (percentiles, Cellpose's style, the U-Net's group statistics) is taken from the whole image
here, too: the cells are those of one pass over the whole.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.disk_array import release, zeros
from cellsparse_common.imaging.scores import Scores, Segmentation
from cellsparse_common.imaging.types import Floats, Indices, Labels
from cellsparse_trainer.data.fed_image import Box, FedImage

SIDE = 1536
"""Side in pixels of a window without its overlap."""
MULTIPLE = 64
"""Windows begin at multiples of this: networks pool groups of pixels."""


@dataclass(frozen=True, kw_only=True)
class LargeSegmentation:
    """The cells of a large image, as `Segmentation` holds those of any image."""

    labels: Labels
    """Axes YX, on disk if it is large: 0 background, 1 to n the cells."""
    scores: Scores
    """One per cell."""

    def without_small(self, min_pixels: int) -> "LargeSegmentation":
        """Remove cells of few pixels and number the rest 1, 2, ... in their order; changes `labels` in place."""
        areas = np.zeros(len(self.scores) + 1, np.int64)
        for rows in _rows(self.labels):
            areas += np.bincount(rows.ravel(), minlength=len(areas))
        kept = areas >= max(min_pixels, 1)
        kept[0] = False
        number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
        for rows in _rows(self.labels):
            rows[...] = number[rows]
        return LargeSegmentation(labels=self.labels, scores=self.scores[kept[1:]])


class Windows(Protocol):
    """One large image, and what a model knows of the whole of it."""

    @property
    def halo(self) -> int:
        """Pixels around a window in which something may decide about a cell that is partly in it."""

    def segment(self, box: Box) -> Segmentation:
        """Return the cells of a part of the image; those at its border may be wrong."""

    def again(self, areas: Indices) -> bool:
        """Look at the area of every cell found, in pixels; return whether all has to be segmented once more."""


@dataclass(frozen=True, kw_only=True)
class SeparateWindows:
    """Windows of a model that needs nothing of the whole image but its percentiles."""

    image: FedImage
    find: Callable[[Floats], Segmentation]
    """Segments a part of the image."""
    halo: int
    """Pixels around a window in which something may decide about a cell that is partly in it."""

    def segment(self, box: Box) -> Segmentation:
        """Return the cells of a part of the image."""
        return self.find(self.image.read(box))

    def again(self, areas: Indices) -> bool:
        """Return False: sizes change nothing."""
        return False


@runtime_checkable
class WindowModel(Protocol):
    """A model that segments large 2D images in windows."""

    def windows(self, image: FedImage) -> Windows:
        """Return the image as windows."""


def segment_large(model: WindowModel, image: FedImage, *, side: int = SIDE) -> LargeSegmentation:
    """Segment an image in windows.

    Args:
        model: The model.
        image: The image.
        side: Side of a window without its overlap.
    """
    source = model.windows(image)
    while True:
        labels: Labels = zeros(image.shape, np.int32)
        scores: list[Scores] = []
        areas: list[Indices] = []
        cells = 0
        for core, seen in boxes(image.shape, side, source.halo):
            found = source.segment(seen)
            kept, area = _keep(labels, found.labels, core, seen, cells)
            numbers = np.flatnonzero(np.bincount(found.labels.ravel(), minlength=1)[1:]) + 1
            scores.append(found.scores[np.isin(numbers, kept)])
            areas.append(area)
            cells += len(kept)
            release(labels)
        if not source.again(np.concatenate(areas)):
            return LargeSegmentation(labels=labels, scores=np.concatenate(scores).astype(np.float32))


def boxes(shape: tuple[int, int], side: int, halo: int) -> Iterator[tuple[Box, Box]]:
    """Yield the windows of an image, row by row: each without and with the overlap.

    Args:
        shape: Height and width of the image.
        side: Side of a window without its overlap, rounded up to a multiple of `MULTIPLE`.
        halo: Pixels of overlap on each side, rounded up likewise.
    """
    side, halo = (-(-value // MULTIPLE) * MULTIPLE for value in (side, halo))
    edges = ([*range(0, length, side), length] for length in shape)
    for (top, bottom), (left, right) in itertools.product(*(itertools.pairwise(each) for each in edges)):
        seen = max(0, top - halo), min(shape[0], bottom + halo), max(0, left - halo), min(shape[1], right + halo)
        yield (top, bottom, left, right), seen


def _keep(labels: Labels, found: Labels, core: Box, seen: Box, cells: int) -> tuple[Indices, Indices]:
    """Draw a window's own cells into the whole, numbered on from `cells`; return their numbers there and areas."""
    own = [
        number
        for number, box in enumerate(ndimage.find_objects(found), 1)
        if box is not None and _is_inside(box, core, seen)
    ]
    target = labels[seen[0] : seen[1], seen[2] : seen[3]]
    before = np.bincount(found.ravel(), minlength=1)
    free = np.bincount(found[target == 0], minlength=len(before))
    kept: Indices = np.array([number for number in own if 2 * free[number] > before[number]], np.int64)
    number = np.zeros(len(before), np.int32)
    number[kept] = np.arange(cells + 1, cells + 1 + len(kept))
    drawn = number[found]
    target[...] = np.where((target == 0) & (drawn > 0), drawn, target)
    return kept, before[kept]


def _is_inside(box: tuple[slice, ...], core: Box, seen: Box) -> bool:
    """Tell whether the middle of a bounding box is in a window's own part."""
    middle = [(each.start + each.stop - 1) // 2 + seen[2 * axis] for axis, each in enumerate(box)]
    return all(core[2 * axis] <= at < core[2 * axis + 1] for axis, at in enumerate(middle))


def _rows(labels: npt.NDArray[np.int32]) -> Iterator[Labels]:
    for top in range(0, len(labels), SIDE):
        yield labels[top : top + SIDE]
        release(labels)
