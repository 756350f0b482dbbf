"""What is drawn for a suggestion: the cell, the ring of background around it, or a spot of background."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.types import GrayImage, Labels, Mask

CELL = 1
"""Value of a patch where the cell is."""
BACKGROUND = 2
"""Value of a patch where background is."""
GAP = 0.12
"""Between a cell and its ring, typical diameters: outlines are not that exact."""
WIDTH = 0.2
"""Width of a ring, typical diameters."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A rectangle of an image: 0 nothing, `CELL`, `BACKGROUND`."""

    x: int
    y: int
    values: npt.NDArray[np.uint8]


def cell_patches(label: Labels, taken: Mask, numbers: npt.NDArray[np.int64], diameter: float) -> list[Patch]:
    """Return the patches of cells, each with the part of its ring that is no other cell's and not labelled yet.

    Args:
        label: YX, 0 background, n > 0 cell n.
        taken: YX, true where no ring may be: what is labelled, and everything that may be a cell.
        numbers: The cells.
        diameter: Typical diameter of the image's cells in pixels.
    """
    gap, width = max(2.0, GAP * diameter), max(2.0, WIDTH * diameter)
    distance, (rows, columns) = ndimage.distance_transform_edt(label == 0, return_indices=True)
    ring = (distance > gap) & (distance <= gap + width) & ~taken
    owner = np.where(ring, label[rows, columns], 0)
    boxes = ndimage.find_objects(label)
    margin = int(np.ceil(gap + width))
    found = []
    for number in numbers.tolist():
        place = tuple(
            slice(max(box.start - margin, 0), min(box.stop + margin, size))
            for box, size in zip(boxes[number - 1], label.shape, strict=True)
        )
        values = (label[place] == number) * np.uint8(CELL) + (owner[place] == number) * np.uint8(BACKGROUND)
        found.append(Patch(x=place[1].start, y=place[0].start, values=values.astype(np.uint8)))
    return found


def background_spots(plane: GrayImage, taken: Mask, diameter: float, count: int) -> list[tuple[Patch, float]]:
    """Return round spots of background with their brightness, the brightest first: what a model may take for a cell.

    Args:
        plane: YX grey values in which cells are bright.
        taken: YX, true where a cell may be, and where it is labelled.
        diameter: Typical diameter of the image's cells in pixels; a spot is about half as wide.
        count: Most spots.
    """
    radius = max(2, round(0.3 * diameter))
    # A spot touches nothing, nor the border.
    distance = ndimage.distance_transform_edt(np.pad(~taken, 1))[1:-1, 1:-1]
    free = distance > 2 * radius
    blurred = ndimage.gaussian_filter(plane, radius / 2, mode="nearest")
    disc = np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    found: list[tuple[Patch, float]] = []
    while len(found) < count and free.any():
        row, column = np.unravel_index(int(np.where(free, blurred, -np.inf).argmax()), free.shape)
        patch = Patch(x=int(column) - radius, y=int(row) - radius, values=disc * np.uint8(BACKGROUND))
        found.append((patch, float(blurred[row, column])))
        reach = round(2 * diameter)
        free[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1] = False
    return found
