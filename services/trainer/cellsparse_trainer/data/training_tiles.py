"""Large training images as tiles, since backends make the targets of whole samples.

Targets, likely background and the lists of labelled pixels take many times the memory of the image that they are made
of. Tiles overlap by the largest labelled cell, so each cell is whole in at least one of them.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from cellsparse_common.dataset_items import is_stack
from cellsparse_common.imaging.disk_array import release
from cellsparse_proto.v1 import dataset_pb2
from cellsparse_trainer.data.fed_image import LARGE_PIXELS
from cellsparse_trainer.data.lru_cache import SizedLruCache
from cellsparse_trainer.data.parts import Box, cell_boxes, cut_part, extents
from cellsparse_trainer.data.samples import CACHE_BYTES, CachedSamples, Sample

SIDE = 1024
"""Side of a tile in pixels, overlaps included."""
LEAST_OVERLAP = 128
"""Pixels that neighbouring tiles share, at least."""
_EDGE = 1
"""Pixels at a tile's border that are not labelled in it."""

Tile: TypeAlias = tuple[int, Box | None]
"""Index of a sample, and a part of it; None: all of it."""


def is_large(item: dataset_pb2.DatasetItem) -> bool:
    """Whether an item is a 2D image that is not worked on as a whole."""
    return not is_stack(item) and math.prod(item.shape[:2]) >= LARGE_PIXELS


def training_tiles(samples: Sequence[Sample], items: Sequence[dataset_pb2.DatasetItem]) -> list[Tile]:
    """Return what a training takes for its items: large images as tiles with a labelled pixel, others whole.

    Args:
        samples: The items as they are read; only large ones are.
        items: What the manifest says about them.
    """
    tiles: list[Tile] = []
    for index, item in enumerate(items):
        tiles += [(index, part) for part in labelled_parts(samples[index])] if is_large(item) else [(index, None)]
    return tiles


def labelled_parts(sample: Sample, side: int = SIDE, least_overlap: int = LEAST_OVERLAP) -> list[Box]:
    """Return the tiles of a 2D sample that have a labelled pixel, row by row.

    Args:
        sample: The sample.
        side: Side of a tile in pixels; larger where the cells are.
        least_overlap: Pixels that neighbours share; more where cells are larger.
    """
    overlap = max([least_overlap, *(size + 2 * _EDGE for size in extents(cell_boxes(sample.label)))])
    side = max(side, 2 * overlap)
    height, width = sample.label.shape
    columns = _spans(width, side, overlap)
    parts: list[Box] = []
    for rows in _spans(height, side, overlap):
        parts += [(rows, each) for each in columns if (sample.label[rows, each] >= 0).any()]
        release(sample.label)
    return parts


def _spans(length: int, side: int, overlap: int) -> list[slice]:
    """Return equally long spans that cover a length and overlap by so many pixels at least."""
    if length <= side:
        return [slice(0, length)]
    count = -(-(length - overlap) // (side - overlap))
    starts = np.linspace(0, length - side, count).round().astype(int)
    return [slice(int(start), int(start) + side) for start in starts]


class TileSamples(CachedSamples):
    """Tiles of large samples, and the other samples whole.

    Args:
        samples: The whole samples; `samples` may have to read one again for a tile that is not in memory.
        tiles: As `training_tiles` returns them.
        cache_bytes: Bound on the tiles' memory.
    """

    def __init__(self, samples: Sequence[Sample], tiles: Sequence[Tile], *, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(cache_bytes)
        self._samples = samples
        self._tiles = list(tiles)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; it fills its own cache."""
        return {**self.__dict__, "_cache": SizedLruCache(self._make, self._cache_bytes)}

    def __len__(self) -> int:
        return len(self._tiles)

    def _make(self, index: int) -> Sample:
        number, part = self._tiles[index]
        sample = self._samples[number]
        if part is None:
            return sample
        cut = cut_part(sample, part, _EDGE)
        release(sample.image)
        release(sample.label)
        return replace(cut, name=f"{sample.name} from row {part[0].start}, column {part[1].start}")
