"""The cells of a label tile: number, area and bounding box of each, kept beside the tile so that lists need no pixels.

A table of cells is an array (cells, 6) of uint32: label number, area, and left, upper, right and lower edge in the
tile, right and lower edge exclusive; in ascending order of the numbers.
"""

import zlib
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.scores import Scores
from cellsparse_orchestrator.projects.label_numbers import FIRST_CELL, Numbers
from cellsparse_orchestrator.projects.tiling import TILE, Place
from cellsparse_proto.v1 import project_pb2

CellTable: TypeAlias = npt.NDArray[np.uint32]
"""Axes: cells; label, area, left, top, right, bottom."""

_FEW = 12
"""Up to so many cells are quicker looked for one by one than all together."""
_SPAN = 1 << 22
"""Up to this distance between numbers of one tile a table of all numbers between them is small enough."""


def measure(numbers: Numbers) -> CellTable:
    """Return the table of all cells of a tile."""
    cells = numbers >= FIRST_CELL
    if not cells.any():
        return np.zeros((0, 6), np.uint32)
    found, compact = _compact(numbers, cells)
    areas = np.bincount(compact.ravel(), minlength=len(found) + 1)[1:]
    rows = [
        (label, area, box[1].start, box[0].start, box[1].stop, box[0].stop)
        for label, area, box in zip(found.tolist(), areas.tolist(), ndimage.find_objects(compact), strict=True)
        if box is not None
    ]
    return np.array(rows, np.uint32).reshape(-1, 6)


def remeasure(table: CellTable, numbers: Numbers, changed: Iterable[int]) -> CellTable:
    """Return the table of a tile in which the pixels of some numbers have changed.

    Args:
        table: The table before.
        numbers: The tile after.
        changed: Numbers that it has more, fewer or other pixels of.
    """
    labels = sorted({label for label in changed if label >= FIRST_CELL})
    if len(labels) > _FEW:
        return measure(numbers)
    rows = [table[~np.isin(table[:, 0], labels)]]
    for label in labels:
        there = numbers == label
        down, across = there.any(1).nonzero()[0], there.any(0).nonzero()[0]
        if down.size:
            box = (across[0], down[0], across[-1] + 1, down[-1] + 1)
            rows.append(np.array([[label, np.count_nonzero(there), *box]], np.uint32))
    joined = np.concatenate(rows)
    ordered: CellTable = joined[np.argsort(joined[:, 0], kind="stable")]
    return ordered


def pack(table: CellTable) -> bytes:
    """Return a table as bytes."""
    return zlib.compress(np.ascontiguousarray(table, "<u4").data, 1)


def unpack(data: bytes) -> CellTable:
    """Return the table that `pack` wrote."""
    return np.frombuffer(zlib.decompress(data), "<u4").reshape(-1, 6).astype(np.uint32)


def pack_scores(scores: Scores) -> bytes:
    """Return scores as bytes."""
    return zlib.compress(np.ascontiguousarray(scores, "<f4").data, 1)


def unpack_scores(data: bytes) -> Scores:
    """Return the scores that `pack_scores` wrote."""
    return np.frombuffer(zlib.decompress(data), "<f4").astype(np.float32)


def areas(tables: Iterable[CellTable]) -> dict[int, int]:
    """Return the area of each cell over all tiles."""
    joined = np.concatenate([np.zeros((0, 6), np.uint32), *tables])
    labels, inverse = np.unique(joined[:, 0], return_inverse=True)
    sums = np.bincount(inverse, weights=joined[:, 1], minlength=len(labels)).astype(np.int64)
    return dict(zip(labels.tolist(), sums.tolist(), strict=True))


def diameter(cell_areas: Iterable[int], *, stack: bool) -> float:
    """Return the median diameter of circles, or of spheres, as large as the cells; 0 without cells."""
    sizes = np.fromiter(cell_areas, np.float64)
    if not sizes.size:
        return 0.0
    middle = np.median(np.cbrt(6 * sizes / np.pi) if stack else 2 * np.sqrt(sizes / np.pi))
    return float(middle)


def list_cells(tiles: Iterable[tuple[Place, CellTable]], scores: Scores | None = None) -> list[project_pb2.Cell]:
    """Return all cells of an image, joined over its tiles, in ascending order of their numbers.

    Args:
        tiles: Place and table of each tile.
        scores: Scores by cell number, one less than the label number; None for annotations, which have none.
    """
    parts = [
        np.concatenate(
            [
                table.astype(np.int64) + np.array([0, 0, *(place.x * TILE, place.y * TILE) * 2]),
                np.full((len(table), 1), place.plane),
            ],
            axis=1,
        )
        for place, table in tiles
    ]
    joined = np.concatenate([np.zeros((0, 7), np.int64), *parts])
    if not len(joined):
        return []
    joined = joined[np.argsort(joined[:, 0], kind="stable")]
    begins = np.flatnonzero(np.diff(joined[:, 0], prepend=-1))
    labels, area = joined[begins, 0], np.add.reduceat(joined[:, 1], begins)
    low = np.minimum.reduceat(joined[:, [2, 3, 6]], begins)
    high = np.maximum.reduceat(joined[:, [4, 5, 6]], begins)
    rows = np.column_stack([labels, low[:, :2], high[:, :2] - low[:, :2], low[:, 2], high[:, 2] - low[:, 2] + 1, area])
    names = ("label", "x", "y", "width", "height", "plane", "planes", "area")
    cells = [project_pb2.Cell(**dict(zip(names, row, strict=True))) for row in rows.tolist()]
    if scores is not None:
        for cell, score in zip(cells, scores[labels - 1].tolist(), strict=True):
            cell.score = score
    return cells


def _compact(numbers: Numbers, cells: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return the cells' numbers in ascending order, and the tile with 1, 2, ... in their place."""
    inside = numbers[cells]
    low, high = int(inside.min()), int(inside.max())
    compact = np.zeros(numbers.shape, np.int32)
    if high - low > _SPAN:
        found, inverse = np.unique(inside, return_inverse=True)
        compact[cells] = inverse.ravel() + 1
        return found.astype(np.int64), compact
    there = np.zeros(high - low + 1, bool)
    there[inside - low] = True
    compact[cells] = np.cumsum(there, dtype=np.int32)[inside - low]
    return np.flatnonzero(there) + low, compact
