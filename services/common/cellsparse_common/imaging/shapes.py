"""Drawn shapes, as they come from a file of annotations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.float64]
"""A closed line: rows of x, y, at least 3 of them; the last one is joined to the first."""
Polygon = Sequence[Ring]
"""An outline and its holes (even-odd rule)."""

MAX_VERTICES = 2_000_000
"""Most vertices of all shapes of a file."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One annotation."""

    name: str
    """Its name in messages."""
    background: bool = False
    """Whether it marks background rather than a cell."""
    polygons: Sequence[Polygon] = ()
    """Its parts."""
    skipped: str = ""
    """Why it is no label, as the rest of a sentence that begins with its name; "" if it is one."""
    may_hold: bool = False
    """Whether it is a region, not a cell, where it contains other shapes."""
    detection: bool = False
    """Whether a region contains it as soon as most of it is inside; others must be inside as a whole."""

    plane: int | None = None
    """Plane of a stack, from 0; None: the file does not say which."""
    time: int = 0
    """Time point, from 0."""
    number: int | None = None
    """Number of the cell that it shows in its plane, where the file numbers cells; None: it is a cell of its own."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest and largest coordinates: x0, y0, x1, y1."""
        points = np.concatenate([ring for polygon in self.polygons for ring in polygon])
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    @property
    def vertices(self) -> int:
        """Number of vertices."""
        return sum(len(ring) for polygon in self.polygons for ring in polygon)

    @property
    def flat(self) -> bool:
        """Whether its outlines enclose no area: all their vertices are on one line."""
        return all(_is_flat(ring) for polygon in self.polygons for ring in polygon)


def _is_flat(ring: Ring) -> bool:
    sides = ring - ring[0]
    longest = sides[np.argmax((sides**2).sum(axis=1))]
    length = float(np.hypot(*longest))
    # The largest distance of a vertex from the line through the first one and the farthest from it.
    return length == 0 or float(np.abs(sides[:, 0] * longest[1] - sides[:, 1] * longest[0]).max()) < 1e-6 * length
