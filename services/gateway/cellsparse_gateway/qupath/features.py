"""Label images as the array of GeoJSON features that QuPath's extensions read.

The Cellsparse extension deletes all annotations without a class before it adds the new ones. Features therefore carry
no class, no object type and no id: what was predicted is replaced by the next prediction.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.outlines import Outline, label_outlines

Feature = dict[str, Any]
Point = tuple[int, int]


def cell_features(label: npt.NDArray[np.integer[Any]], simplify: float = 0.0) -> list[Feature]:
    """Return one feature per cell, in the order of their numbers.

    Args:
        label: Axes YX; cells are the values above 0.
        simplify: How far an outline may leave the edges of the pixels, pixels; 0 follows them exactly.

    Raises:
        ResourceExhausted: The outlines are too long.
    """
    return [
        {
            "type": "Feature",
            "geometry": geometry(outline, simplify),
            "properties": {"object_idx": index, "label": "object"},
        }
        for index, outline in enumerate(label_outlines(label))
    ]


def geometry(outline: Outline, simplify: float = 0.0) -> dict[str, Any]:
    """Return the geometry of a cell: a Polygon with its holes, or a MultiPolygon if it has several parts."""
    polygons = [[_closed(ring) for ring in _simplified(polygon, simplify)] for polygon in outline.polygons]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _closed(ring: Sequence[Point]) -> list[Point]:
    return [*ring, ring[0]]


def _simplified(polygon: list[list[Point]], tolerance: float) -> Iterable[Sequence[Point]]:
    """Yield a polygon's rings with fewer corners. Holes that vanish are left out, and a vanishing outline stays."""
    for index, ring in enumerate(polygon):
        fewer = _fewer_corners(ring, tolerance) if tolerance else ring
        if len(fewer) >= 3:
            yield fewer
        elif index == 0:
            yield ring


def _fewer_corners(ring: Sequence[Point], tolerance: float) -> list[Point]:
    """Leave out corners that lie within `tolerance` of the line without them (Douglas and Peucker 1973).

    The ring is cut at its first corner and at the one farthest from it.
    """
    middle = max(range(len(ring)), key=lambda at: math.dist(ring[0], ring[at]))
    line = [*ring, ring[0]]
    kept = {0, middle}
    pending = [(0, middle), (middle, len(ring))]
    while pending:
        first, last = pending.pop()
        inner = range(first + 1, last)
        farthest = max(inner, key=lambda at: _distance(line[at], line[first], line[last]), default=None)
        if farthest is not None and _distance(line[farthest], line[first], line[last]) > tolerance:
            kept.add(farthest)
            pending += [(first, farthest), (farthest, last)]
    return [ring[at] for at in sorted(kept)]


def _distance(point: Point, start: Point, end: Point) -> float:
    """Return the distance of a point from the line between two others."""
    (x, y), (x0, y0), (x1, y1) = point, start, end
    length = math.dist(start, end)
    if not length:
        return math.dist(point, start)
    along = max(0.0, min(1.0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length**2))
    return math.dist(point, (x0 + along * (x1 - x0), y0 + along * (y1 - y0)))
