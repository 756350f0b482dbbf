"""Drawing the annotations of a COCO file: polygons and run lengths, the first cell on top."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging import run_lengths
from cellsparse_common.imaging.polygons import paint
from cellsparse_common.imaging.shapes import MAX_VERTICES, Shape
from cellsparse_common.imaging.types import Indices, Labels

_MAX_OVERLAP = 32
"""Largest total area of the annotations, in areas of the image."""


class Painter:
    """Draws annotations, the first ones on top."""

    def __init__(self, shape: tuple[int, int], field: str) -> None:
        self.cells = 0
        self._shape = shape
        self._field = field
        self._flat = np.full(shape[0] * shape[1], -2, np.int64)  # column by column; -2: no annotation
        self._left = _MAX_OVERLAP * max(shape[0] * shape[1], 2**20)
        self._vertices = MAX_VERTICES

    def paint(self, segmentation: Any, name: str, kind: int) -> str:
        """Give the pixels of an annotation that no other one has a value.

        Args:
            segmentation: As in the file.
            name: Of the annotation, in messages.
            kind: 1 a cell, 0 background, -1 not labelled.

        Returns:
            Why it is skipped, as the rest of a sentence; "" if it is not.
        """
        places = self._places(segmentation, name)
        self._left -= len(places)
        if self._left < 0:
            raise ResourceExhausted(
                f"The {self._field} has annotations that cover the image more than {_MAX_OVERLAP} times.", self._field
            )
        drawn = isinstance(segmentation, list)  # nobody draws a frame as run lengths, but we write a large cell so
        if kind > 0 and drawn and len(places) == self._flat.size:
            return "covers the whole image, so it is the frame around it"
        free = places[self._flat[places] == -2]
        if kind > 0 and not len(free):
            return "covers no pixel, or only pixels of cells before it"
        self.cells += kind > 0
        self._flat[free] = self.cells if kind > 0 else kind
        return ""

    def labels(self) -> Labels:
        """Return what was drawn; the rest is background."""
        flat = np.where(self._flat == -2, 0, self._flat).astype(np.int32)
        return np.ascontiguousarray(flat.reshape(self._shape[::-1]).T)

    def _places(self, segmentation: Any, name: str) -> Indices:
        if isinstance(segmentation, dict):
            if segmentation.get("size") != list(self._shape):
                raise InvalidArgument(
                    f"In the {self._field}, {name} has run lengths of size {segmentation.get('size')!s:.50}; the image "
                    f"is {list(self._shape)}.",
                    self._field,
                )
            try:
                return run_lengths.inside(segmentation.get("counts"), self._flat.size)
            except ValueError as error:
                raise InvalidArgument(f"In the {self._field}, {name} is broken: {error}.", self._field) from error
        return self._drawn(segmentation, name)

    def _drawn(self, segmentation: Any, name: str) -> Indices:
        """Return the pixels of polygons, each a row of x, y, x, y, ...; together they are one cell."""
        rings = []
        for ring in segmentation if isinstance(segmentation, list) and segmentation else [None]:
            if (
                not isinstance(ring, list)
                or len(ring) < 2
                or len(ring) % 2
                or not all(type(number) in (int, float) and abs(number) <= 1e9 for number in ring)
            ):
                raise InvalidArgument(
                    f"In the {self._field}, {name} has no segmentation; allowed: polygons of at least 3 points, and "
                    "run lengths.",
                    self._field,
                )
            rings.append([np.array(ring, np.float64).reshape(-1, 2)])
        rings = [polygon for polygon in rings if not Shape(name=name, polygons=[polygon]).flat]
        if not rings:
            return np.zeros(0, np.int64)
        self._vertices -= sum(len(polygon[0]) for polygon in rings)
        if self._vertices < 0:
            raise ResourceExhausted(
                f"The {self._field} has more than {MAX_VERTICES:,} vertices; simplify the outlines.", self._field
            )
        return self._pixels(rings, name)

    def _pixels(self, rings: list[list[npt.NDArray[np.float64]]], name: str) -> Indices:
        """Return the pixels inside, painted in the part of the image that the polygons touch."""
        points = np.concatenate([polygon[0] for polygon in rings])
        height, width = self._shape
        if (points.max(axis=0) <= 0).any() or (points.min(axis=0) >= (width, height)).any():
            (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
            raise InvalidArgument(
                f"In the {self._field}, {name} lies outside the image of {height} x {width} pixels: it spans x {x0:g} "
                f"to {x1:g}, y {y0:g} to {y1:g}.",
                self._field,
            )
        low = np.clip(np.floor(points.min(axis=0)), 0, (width - 1, height - 1)).astype(int)
        high = np.maximum(np.clip(np.ceil(points.max(axis=0)), 1, (width, height)).astype(int), low + 1)
        shifted = [[polygon[0] - low] for polygon in rings]
        part = paint(
            [Shape(name=name, background=False, polygons=shifted)], (high[1] - low[1], high[0] - low[0]), self._field
        )
        y, x = np.nonzero(part > 0)
        return np.asarray((x + low[0]) * height + y + low[1], np.int64)
