"""Masks by rays: the closed outline around a centre that follows the falling edge, by dynamic programming.

An outline here is one radius per ray, as in StarDist. Neighbouring radii differ by few steps, so that it closes the
gaps where a neighbour touches.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_gateway.prompts.types import Mask, Plane

RAYS = 32
JUMP = 2
"""Most steps between the radii of neighbouring rays."""
BEND = 0.1
"""Cost of one such step."""
WEIGHTS = np.array([[0.5, 0.3], [0.5, 0.5], [0.5, 0.7], [1.5, 0.3], [1.5, 0.5], [1.5, 0.7]], np.float32)
"""For each outline: weight of the dark area inside, and the value (0 background, 1 clicked) below which it is dark."""


def ray_masks(
    plane: Plane, y: float, x: float, *, diameter: float, background: float, value: float
) -> npt.NDArray[np.bool_]:
    """Return masks (N, Y, X) inside outlines around a pixel, recentred once.

    Args:
        plane: Slightly blurred grey values in which the cell is bright.
        y: Row of a pixel of the cell.
        x: Column of that pixel.
        diameter: Typical diameter of a cell in pixels.
        background: Grey value of what is no cell.
        value: Grey value of the cell, above `background`.
    """
    first = _inside(plane, y, x, diameter, background, value, WEIGHTS[1:2])[0]
    rows, columns = np.nonzero(first)
    if rows.size:
        y, x = float(rows.mean()), float(columns.mean())
    return _inside(plane, y, x, diameter, background, value, WEIGHTS)


def _inside(
    plane: Plane, y: float, x: float, diameter: float, background: float, value: float, weights: Plane
) -> npt.NDArray[np.bool_]:
    step = max(0.5, diameter / 40)
    radii = np.arange(1, int(np.ceil(1.1 * diameter / step)) + 1, dtype=np.float32) * np.float32(step)
    angles = np.arange(RAYS) * (2 * np.pi / RAYS)
    places = [y + np.sin(angles)[:, None] * radii, x + np.cos(angles)[:, None] * radii]
    grey = (ndimage.map_coordinates(plane, places, order=1, mode="nearest") - background) / (value - background)
    fall = np.zeros_like(grey)
    fall[:, 1:-1] = (grey[:, :-2] - grey[:, 2:]) * (diameter / (8 * step))
    dark = np.clip(weights[:, 1, None, None] - grey, -0.5, 0.5)
    area = np.cumsum(dark * radii * step, axis=2) / (0.125 * diameter**2)
    costs = weights[:, 0, None, None] * area - np.clip(fall, -1, 1.5)
    return _fill(plane.shape, y, x, radii[closed_paths(costs.astype(np.float32))])


def closed_paths(costs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the cheapest closed path through each table of costs (N, rays, radii) as one radius index per ray.

    The rays are passed twice and the path of the middle half is taken, which closes unless the costs are degenerate.
    """
    count, rays, radii = costs.shape
    padded = np.full((count, radii + 2 * JUMP), np.inf, np.float32)
    steps = np.empty((2 * rays, count, radii), np.int64)
    before = np.empty((2 * JUMP + 1, count, radii), np.float32)
    total = costs[:, 0]
    for index in range(1, 2 * rays):
        padded[:, JUMP : JUMP + radii] = total
        for shift in range(2 * JUMP + 1):
            np.add(padded[:, shift : shift + radii], np.float32(BEND * abs(shift - JUMP)), out=before[shift])
        before.argmin(0, out=steps[index])
        total = before.min(0) + costs[:, index % rays]
    steps -= JUMP
    path = np.empty((2 * rays, count), np.int64)
    path[-1] = total.argmin(1)
    table = np.arange(count)
    for index in range(2 * rays - 1, 0, -1):
        path[index - 1] = path[index] + steps[index, table, path[index]]
    middle = path[rays // 2 : rays // 2 + rays]
    return np.roll(middle, rays // 2, axis=0).T


def _fill(shape: tuple[int, ...], y: float, x: float, radii: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - y, columns - x)
    angle = (np.arctan2(rows - y, columns - x) % (2 * np.pi)) * (RAYS / (2 * np.pi))
    ray = np.floor(angle).astype(np.int64)
    part = angle - ray
    edge = radii[:, ray % RAYS] * (1 - part) + radii[:, (ray + 1) % RAYS] * part
    result: Mask = distance <= edge
    return result
