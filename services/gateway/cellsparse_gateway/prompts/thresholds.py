"""Masks by thresholds: what hangs together around a click above ever higher values, and its parts."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from cellsparse_gateway.prompts.types import Mask, Plane

FRACTIONS = np.linspace(0.12, 0.88, 9)
"""Thresholds, between the background's value (0) and the clicked one (1)."""
DEPTHS = (0.35, 0.55, 0.75)
"""Seeds of parts: what is deeper in the mask than these fractions of its depth."""
EIGHT = np.ones((3, 3), np.bool_)


def around(mask: Mask, row: int, column: int) -> Mask:
    """Return the 4-connected component of a mask that holds a pixel; empty if the pixel is outside."""
    labels, _ = ndimage.label(mask)
    number = labels[row, column]
    result: Mask = labels == number if number else np.zeros_like(mask)
    return result


def part_of(mask: Mask, seeds: Mask, row: int, column: int) -> Mask | None:
    """Return the part of a mask that is nearer to the clicked pixel's seed than to others; None with one seed."""
    labels, count = ndimage.label(seeds, EIGHT)
    if count < 2:
        return None
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    owner = labels[nearest[0], nearest[1]]
    return around(mask & (owner == owner[row, column]), row, column)


def threshold_masks(
    plane: Plane, row: int, column: int, *, background: float, value: float, depth: float
) -> Iterator[Mask]:
    """Yield masks that hold a pixel, whole and split where they have necks.

    Args:
        plane: Blurred grey values in which the cell is bright.
        row: Clicked row.
        column: Clicked column.
        background: Grey value of what is no cell.
        value: Grey value of the cell, above `background`.
        depth: Greatest depth (pixels) of a mask that the seeds' depths are fractions of.
    """
    highest = np.nextafter(plane[row, column], np.float32(-np.inf))
    for fraction in FRACTIONS:
        mask = around(plane > min(background + fraction * (value - background), highest), row, column)
        mask = ndimage.binary_fill_holes(mask)
        yield mask
        distance = ndimage.distance_transform_edt(mask)
        top = min(float(distance.max()), depth)
        for deep in DEPTHS:
            part = part_of(mask, distance > deep * top, row, column)
            if part is not None:
                yield part
