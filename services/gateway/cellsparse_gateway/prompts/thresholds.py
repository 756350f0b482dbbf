"""Masks by thresholds: what hangs together around a click above ever higher values, and its parts."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from cellsparse_common.imaging.classical.basins import basins
from cellsparse_gateway.prompts.types import Mask, Plane

FRACTIONS = (0.12, 0.22, 0.32, 0.42, 0.52, 0.62, 0.72, 0.82)
"""Thresholds, between the background's value (0) and the clicked one (1)."""
FOUR = ndimage.generate_binary_structure(2, 1)
"""Neighbours at the edges of a pixel; made once, as `ndimage.label` would make it at every call."""


def around(mask: Mask, row: int, column: int) -> Mask:
    """Return the 4-connected component of a mask that holds a pixel; empty if the pixel is outside."""
    labels, _ = ndimage.label(mask, FOUR)
    number = labels[row, column]
    result: Mask = labels == number if number else np.zeros_like(mask)
    return result


def filled(mask: Mask, row: int, column: int) -> Mask:
    """Return `around` with its holes filled."""
    outside, _ = ndimage.label(np.pad(~around(mask, row, column), 1, constant_values=True), FOUR)
    result: Mask = (outside != outside[0, 0])[1:-1, 1:-1]
    return result


def round_part(mask: Mask, row: int, column: int, sigma: float) -> Mask:
    """Return the part of a mask that belongs to the clicked pixel's peak of its blurred distance map."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    distance = ndimage.distance_transform_edt(np.pad(mask[box], 1))[1:-1, 1:-1]
    owner = basins(ndimage.gaussian_filter(distance.astype(np.float32), sigma))
    y, x = row - rows[0], column - columns[0]
    part = np.zeros_like(mask)
    part[box] = around(mask[box] & (owner == owner[y, x]), y, x)
    return part


def threshold_masks(
    window: Plane, blurred: Plane, row: int, column: int, *, diameter: float, background: float, value: float
) -> Iterator[Mask]:
    """Yield masks that hold a pixel, whole and split where they have necks or valleys.

    Args:
        window: Grey values in which the cell is bright.
        blurred: The same, slightly blurred.
        row: Clicked row.
        column: Clicked column.
        diameter: Typical diameter of a cell in pixels.
        background: Grey value of what is no cell.
        value: Grey value of the cell, above `background`.
    """
    highest = np.nextafter(blurred[row, column], np.float32(-np.inf))
    hill = basins(ndimage.gaussian_filter(window, max(0.6, 0.1 * diameter), mode="nearest"))
    mine = hill == hill[row, column]
    for fraction in FRACTIONS:
        mask = filled(blurred > min(background + fraction * (value - background), highest), row, column)
        yield mask
        yield round_part(mask, row, column, max(0.5, 0.08 * diameter))
        yield filled(mask & mine, row, column)
    yield from _contrast_masks(window, blurred, row, column, diameter)
    yield from _band_masks(window, row, column, diameter, background, value)


def _contrast_masks(window: Plane, blurred: Plane, row: int, column: int, diameter: float) -> Iterator[Mask]:
    """Yield what is brighter than its own neighbourhood: cells beside brighter ones, of any brightness."""
    near = max(1, round(0.15 * diameter))
    place = slice(max(0, row - near), row + near + 1), slice(max(0, column - near), column + near + 1)
    for sigma in (0.25, 0.5):
        excess = blurred - ndimage.gaussian_filter(window, sigma * diameter, mode="nearest")
        highest = np.nextafter(excess[row, column], np.float32(-np.inf))
        strong = float(np.percentile(excess[place], 75))
        for fraction in (-0.15, 0.0, 0.2):
            mask = filled(excess > min(fraction * max(strong, 0.0), highest), row, column)
            yield mask
            yield round_part(mask, row, column, max(0.5, 0.08 * diameter))


def _band_masks(
    window: Plane, row: int, column: int, diameter: float, background: float, value: float
) -> Iterator[Mask]:
    """Yield what is neither much darker nor much brighter than the click: cells that a brighter one covers in part."""
    blurred = ndimage.gaussian_filter(window, max(0.6, 0.08 * diameter), mode="nearest")
    here = float(blurred[row, column])
    highest = np.nextafter(np.float32(here), np.float32(-np.inf))
    below = blurred <= background + 1.4 * (max(value, here) - background)
    for fraction in (0.35, 0.5, 0.65, 0.8):
        mask = ndimage.binary_opening(below & (blurred > min(background + fraction * (value - background), highest)))
        mask[row, column] = True
        mask = filled(mask, row, column)
        yield mask
        yield round_part(mask, row, column, max(0.5, 0.08 * diameter))
