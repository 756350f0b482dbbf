"""Parts cut from labelled images: where the labelled cells are, and what is known of them inside a part."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from cellsparse_common.imaging.disk_array import in_bands, release, zeros
from cellsparse_common.imaging.types import Labels, Mask
from cellsparse_trainer.data.samples import Sample

Box: TypeAlias = tuple[slice, ...]
"""A part of an image: from and to which pixel along each axis of its label image."""


def cell_boxes(label: Labels) -> list[Box]:
    """Return the bounding boxes of the labelled cells, in the order of their numbers."""
    if label.max(initial=0) > label.size:  # numbers of cells may be huge
        label = _renumbered(label)
    boxes = [box for box in ndimage.find_objects(label) if box is not None]
    release(label)
    return boxes


def cut_part(sample: Sample, part: Box, edge: int) -> Sample:
    """Return a part of a sample, as a copy. Cells that the part cuts are not labelled in it.

    Args:
        sample: 2D or a stack.
        part: Which part; inside the image.
        edge: Pixels at the part's borders that are not labelled in it either, unless the border is the image's; from 1.
    """
    label = sample.label[part].copy()
    inner = tuple(
        slice(0 if side.start == 0 else edge, side.stop - side.start - (0 if side.stop == length else edge))
        for side, length in zip(part, sample.label.shape, strict=True)
    )
    kept = np.zeros(label.shape, bool)
    kept[inner] = True
    _forget_cut_cells(label, kept)
    image = sample.image[part].copy()
    for array in (image, label):
        array.setflags(write=False)
    return replace(sample, image=image, label=label)


def extents(boxes: Sequence[Box]) -> list[int]:
    """Return the longest side of each box in pixels."""
    return [max(side.stop - side.start for side in box) for box in boxes]


def _renumbered(label: Labels) -> Labels:
    """Return the label image with its cells numbered from 1, in the order of their numbers."""
    numbers = np.unique(np.concatenate([np.unique(rows[rows > 0]) for rows in in_bands(label)]))
    dense: Labels = zeros(label.shape, np.int32)
    for given, made in zip(in_bands(label), in_bands(dense), strict=True):
        made[...] = np.where(given > 0, np.searchsorted(numbers, given) + 1, 0)
    return dense


def _forget_cut_cells(label: Labels, kept: Mask) -> None:
    """Make the labels off `kept` unknown, and with them the whole cells that they belong to."""
    cut = np.unique(label[~kept])
    label[~kept | np.isin(label, cut[cut > 0])] = -1
