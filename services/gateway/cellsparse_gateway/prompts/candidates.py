"""All masks that the classical prompter considers for one click."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.classical.pixels import smooth
from cellsparse_gateway.prompts.rays import ray_masks
from cellsparse_gateway.prompts.thresholds import threshold_masks
from cellsparse_gateway.prompts.types import Plane

REACH = 1.6
"""Half the side of the window around a click, in diameters."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The surroundings of a click."""

    window: Plane
    """Grey values in which the cell is bright."""
    blurred: Plane
    """The same, slightly blurred."""
    row: int
    """Clicked row."""
    column: int
    """Clicked column."""
    diameter: float
    """Typical diameter of a cell in pixels."""
    background: float
    """Grey value of what is no cell."""
    value: float
    """Grey value of the cell, above `background`."""


def view(window: Plane, row: int, column: int, diameter: float) -> View | None:
    """Measure the surroundings of a click; None where it is no brighter than the darkest of them."""
    blurred = smooth(window, max(0.6, 0.05 * diameter))
    near = max(1, round(0.15 * diameter))
    middle = blurred[max(0, row - near) : row + near + 1, max(0, column - near) : column + near + 1]
    value = max(float(np.median(middle)), float(blurred[row, column]))
    background = float(np.percentile(blurred, 5))
    if not value > background + 1e-6:
        return None
    return View(
        window=window,
        blurred=blurred,
        row=row,
        column=column,
        diameter=diameter,
        background=background,
        value=value,
    )


def candidates(seen: View) -> npt.NDArray[np.bool_]:
    """Return masks (N, Y, X) that hold the clicked pixel, no two alike."""
    numbers = {"diameter": seen.diameter, "background": seen.background, "value": seen.value}
    masks = list(threshold_masks(seen.window, seen.blurred, seen.row, seen.column, **numbers))
    sharper = smooth(seen.window, max(0.6, 0.03 * seen.diameter))
    masks += list(ray_masks(sharper, seen.row, seen.column, **numbers))
    return distinct([mask for mask in masks if mask[seen.row, seen.column]], seen.window.shape)


def distinct(masks: list[npt.NDArray[np.bool_]], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Stack masks without the empty and repeated ones."""
    unique = {mask.tobytes(): mask for mask in masks if mask.any()}
    return np.stack(list(unique.values())) if unique else np.zeros((0, *shape), np.bool_)
