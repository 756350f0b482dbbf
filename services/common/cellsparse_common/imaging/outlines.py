"""Tracing the outlines of a label image along pixel edges, so that painting them gives the same pixels back.

`polygons` explains why no library is used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.errors import ResourceExhausted
from cellsparse_common.imaging.disk_array import BAND_BYTES, in_bands, release, zeros
from cellsparse_common.imaging.types import Indices, Mask

Corner: TypeAlias = tuple[int, int]
"""x, y of a pixel's corner; the first pixel's upper left corner is 0, 0."""
Loop: TypeAlias = list[Corner]
"""Corners of a closed line in their order, without repetition and without points on straight lines."""

MAX_SIDES = 8_000_000
"""Most sides of pixels that all outlines together may follow: about 65,000 round cells of 30 pixels across."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The outlines of one cell."""

    number: int
    """The cell's label."""
    polygons: list[list[Loop]]
    """Per part the outline and then its holes. Parts are 4-connected, in the order of their first pixels. No loop
    touches itself; outlines run counterclockwise in x, y and holes clockwise, as GeoJSON requires."""


def plane_outlines(label: npt.NDArray[np.integer[Any]]) -> Iterator[tuple[int | None, Outline]]:
    """Yield the outlines of an image with None, or of each plane of a stack with its index, by rising number.

    Args:
        label: Axes YX or ZYX; cells are the values above 0. A cell of a stack has an outline in each of its planes.

    Raises:
        ResourceExhausted: The outlines are longer than `MAX_SIDES` together.
    """
    if label.ndim == 2:
        yield from ((None, outline) for outline in label_outlines(label))
        return
    _check_sides(sum(int(np.count_nonzero(_beginnings(plane))) for plane in label))
    for z, plane in enumerate(label):
        yield from ((z, outline) for outline in label_outlines(plane))


def label_outlines(label: npt.NDArray[np.integer[Any]]) -> Iterator[Outline]:
    """Yield the outlines of all cells of an image, by rising number.

    Args:
        label: Axes YX; cells are the values above 0.

    Raises:
        ResourceExhausted: The outlines are longer than `MAX_SIDES`.
    """
    loops: dict[int, list[npt.NDArray[np.int32]]] = {}
    for number, walk in _walks(label):
        loops.setdefault(number, []).extend(np.array(loop, np.int32) for loop in _simple(walk))
    for number in sorted(loops):
        own: list[Loop] = [[(x, y) for x, y in loop.tolist()] for loop in loops[number]]
        yield Outline(number=number, polygons=_polygons(label, number, own))


def _walks(label: npt.NDArray[np.integer[Any]]) -> Iterator[tuple[int, Loop]]:
    """Yield every boundary of every cell once, as its label and its corners, in the order of their first pixels.

    A boundary is made of the sides of pixels, each walked so that the cell is on its right hand on screen: side 0 goes
    right along the top of a pixel, 1 down, 2 left, 3 up. Where two pixels of a cell meet only at a corner the walk
    stays with its pixel, which makes parts 4-connected.
    """
    padded = _padded(label)
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))  # y, x of the directions
    width = padded.shape[1]
    flat = padded.reshape(-1)
    offsets = np.array([y * width + x for y, x in steps])
    edges = _edges(padded, offsets)
    pixel, direction = edges // 4, edges % 4
    ahead = pixel + offsets[direction]
    beside = ahead + offsets[direction - 1]
    straight = flat[ahead] == flat[pixel]
    left = straight & (flat[beside] == flat[pixel])
    following = np.where(
        left,
        beside * 4 + (direction - 1) % 4,
        np.where(straight, ahead * 4 + direction, pixel * 4 + (direction + 1) % 4),
    )
    # Views of memory give plain numbers as lists do, without keeping an object of each.
    successor = np.searchsorted(edges, following).astype(np.int32).data
    turns = (left | ~straight).data
    # The corner at the end of each side, in coordinates of the image without its padding.
    end_x = (pixel % width - 1 + np.isin(direction, (0, 1))).astype(np.int32).data
    end_y = (pixel // width - 1 + np.isin(direction, (1, 2))).astype(np.int32).data
    numbers = flat[pixel].astype(np.int64).data
    seen = bytearray(len(numbers))
    for first in range(len(numbers)):
        if seen[first]:
            continue
        corners: Loop = []
        edge = first
        while not seen[edge]:
            seen[edge] = 1
            if turns[edge]:
                corners.append((end_x[edge], end_y[edge]))
            edge = successor[edge]
        yield numbers[first], corners


def _padded(label: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """Return an image with a border of zeros, one pixel wide; on disk if it is large."""
    padded: npt.NDArray[np.integer[Any]] = zeros((label.shape[0] + 2, label.shape[1] + 2), label.dtype)
    top = 1
    for rows in in_bands(label):
        padded[top : top + len(rows), 1:-1] = rows
        top += len(rows)
        release(padded)
    return padded


def _edges(padded: npt.NDArray[np.integer[Any]], offsets: Indices) -> Indices:
    """Return the sides at which cells end, as 4 times the pixel's flat index plus the side, in rising order."""
    width, flat = padded.shape[1], padded.reshape(-1)
    found: list[Indices] = [np.zeros(0, np.int64)]
    total = 0
    rows = max(1, BAND_BYTES // (width * padded.itemsize))
    for top in range(1, len(padded) - 1, rows):
        start = top * width
        inside = start + np.flatnonzero(flat[start : min(top + rows, len(padded) - 1) * width] > 0)
        # Outward is left of the direction of walking.
        sides = [inside[flat[inside] != flat[inside + offsets[side - 1]]] * 4 + side for side in range(4)]
        total += sum(map(len, sides))
        if total <= MAX_SIDES:
            found.append(np.sort(np.concatenate(sides)))
        release(padded)
    _check_sides(total)
    return np.concatenate(found)


def _beginnings(plane: npt.NDArray[np.integer[Any]]) -> Mask:
    """Return, for the four neighbours of each pixel, whether a side of a cell lies between, shape (4, Y, X)."""
    padded = np.pad(plane, 1)
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.stack([(plane > 0) & (plane != neighbour) for neighbour in around])


def _check_sides(sides: int) -> None:
    if sides > MAX_SIDES:
        raise ResourceExhausted(
            f"The outlines of the cells follow {sides:,} sides of pixels; allowed: at most {MAX_SIDES:,}. Ask for "
            "a label image, or leave out small cells with min_pixels.",
            "format",
        )


def _simple(walk: Loop) -> list[Loop]:
    """Split a boundary where it comes back to a corner: loops that touch themselves are no valid polygons."""
    if len(set(walk)) == len(walk):
        return [walk]
    loops: list[Loop] = []
    path: Loop = []
    place: dict[Corner, int] = {}
    for corner in walk:
        if corner in place:
            start = place[corner]
            loops.append(path[start:])
            for passed in path[start:]:
                del place[passed]
            del path[start:]
        place[corner] = len(path)
        path.append(corner)
    return [*loops, path]


def _polygons(label: npt.NDArray[np.integer[Any]], number: int, loops: list[Loop]) -> list[list[Loop]]:
    """Sort a cell's loops into parts, each with its holes."""
    outer = [loop for loop in loops if _area(loop) > 0]
    holes = [loop for loop in loops if _area(loop) < 0]
    polygons = [[loop] for loop in outer]
    if len(outer) == 1 or not holes:
        return [[*polygon, *holes] for polygon in polygons]
    corners = np.array([corner for loop in outer for corner in loop])
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    parts, _ = ndimage.label(label[top:bottom, left:right] == number)
    owner = {_part(parts, loop, left, top): polygon for loop, polygon in zip(outer, polygons, strict=True)}
    for hole in holes:
        owner[_part(parts, hole, left, top)].append(hole)
    return polygons


def _area(loop: Loop) -> int:
    """Return twice the area, positive for outlines and negative for holes."""
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(loop, [*loop[1:], loop[0]], strict=True))


def _part(parts: npt.NDArray[np.integer[Any]], loop: Loop, left: int, top: int) -> int:
    """Return the part that a loop bounds: that of the pixel to the right of its first line."""
    (x0, y0), (x1, y1) = loop[0], loop[1]
    x, y = x0, y0
    if x1 > x0:
        x, y = x0, y0
    elif y1 > y0:
        x, y = x0 - 1, y0
    elif x1 < x0:
        x, y = x0 - 1, y0 - 1
    else:
        x, y = x0, y0 - 1
    return int(parts[y - top, x - left])
