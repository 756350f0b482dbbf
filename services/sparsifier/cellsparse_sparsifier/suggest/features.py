"""What tells one cell from another: size, shape, brightness, edges, texture, neighbours, and its image."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from cellsparse_common.imaging.types import GrayImage, Labels

Features = npt.NDArray[np.float64]

NAMES = (
    "log_area", "eccentricity", "mean", "contrast", "gradient", "fine_texture", "coarse_texture", "neighbours",
    "image_brightness", "image_size",
)  # fmt: skip
"""Columns of the features."""
NEAR = 3.0
"""Neighbours are counted within so many typical diameters."""


def gray(image: npt.NDArray[Any]) -> GrayImage:
    """Return the channel mean of an image (YX or YXC), scaled so that its percentiles 1 and 99.8 are 0 and 1."""
    plane = image.astype(np.float32)
    plane = plane.mean(2) if plane.ndim == 3 else plane
    plane = np.nan_to_num(plane, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = np.percentile(plane, (1, 99.8))
    scaled: GrayImage = ((plane - low) / max(high - low, 1e-9)).astype(np.float32)
    return scaled


def measure(image: npt.NDArray[Any], label: Labels, *, around: Labels, diameter: float) -> Features:
    """Measure the cells of a label image.

    Args:
        image: YX or YXC, real numbers.
        label: YX, 0 background, 1 ... n the cells to measure, each with at least one pixel.
        around: YX, positive where there is any cell at all: no pixel of these counts as what surrounds a cell, and its
            cells count as neighbours.
        diameter: Typical diameter of the image's cells in pixels.

    Returns:
        float64 (n, len(NAMES)).
    """
    count = int(label.max(initial=0))
    if not count:
        return np.zeros((0, len(NAMES)))
    plane = gray(image)
    numbers = np.arange(1, count + 1)
    flat = label.ravel()
    areas = np.bincount(flat, minlength=count + 1)[1:].astype(np.float64)
    inside = _means(plane, flat, areas)
    centres, eccentricity = _moments(label, areas)
    ring = _surroundings(plane, label, around > 0, max(2.0, 0.3 * diameter))
    edge = label > 0
    edge &= ndimage.grey_erosion(label, size=3) != label
    slope = ndimage.gaussian_gradient_magnitude(plane, 1.0, mode="nearest")
    on_edge = np.bincount(label[edge], minlength=count + 1)[1:]
    gradient = np.bincount(label[edge], slope[edge], count + 1)[1:] / np.maximum(on_edge, 1)
    textures = [
        np.asarray(ndimage.standard_deviation(ndimage.gaussian_laplace(plane, sigma, mode="nearest"), label, numbers))
        for sigma in (1.0, max(1.5, 0.15 * diameter))
    ]
    near = _neighbours(centres, around, NEAR * diameter)
    raw = float(np.median(image)) if np.isfinite(image).all() else 0.0
    columns = [
        np.log(areas),
        eccentricity,
        inside,
        inside - ring,
        gradient,
        *textures,
        np.log1p(near),
        np.full(count, np.sign(raw) * np.log1p(abs(raw))),
        np.full(count, np.log(diameter)),
    ]
    result: Features = np.stack(columns, axis=1).astype(np.float64)
    return result


def _means(plane: GrayImage, flat: npt.NDArray[np.integer[Any]], areas: Features) -> Features:
    result: Features = np.bincount(flat, plane.ravel(), areas.size + 1)[1:] / areas
    return result


def _moments(label: Labels, areas: Features) -> tuple[Features, Features]:
    """Return centres (n, 2) and eccentricities, 0 for a disc, near 1 for a line."""
    rows, columns = np.nonzero(label)
    cells, size = label[rows, columns], areas.size + 1

    def mean(values: npt.NDArray[Any]) -> Features:
        return np.asarray(np.bincount(cells, values, size)[1:] / areas)

    y, x = mean(rows), mean(columns)
    dy, dx = rows - y[cells - 1], columns - x[cells - 1]
    yy, xx, xy = mean(dy * dy) + 1 / 12, mean(dx * dx) + 1 / 12, mean(dy * dx)
    half, root = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    return np.stack([y, x], axis=1), np.sqrt(np.clip(1 - (half - root) / (half + root), 0, 1))


def _surroundings(plane: GrayImage, label: Labels, taken: npt.NDArray[np.bool_], reach: float) -> Features:
    """Return the mean around each cell, over pixels of no cell that are nearest to it; where there are none, of all."""
    distance, (rows, columns) = ndimage.distance_transform_edt(label == 0, return_indices=True)
    ring = (distance > 0) & (distance <= reach) & ~taken
    owners = label[rows[ring], columns[ring]]
    count = int(label.max())
    sizes = np.bincount(owners, minlength=count + 1)[1:]
    sums = np.bincount(owners, plane[ring], count + 1)[1:]
    rest = float(plane[~taken].mean()) if not taken.all() else float(plane.mean())
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), rest)


def _neighbours(centres: Features, around: Labels, reach: float) -> Features:
    """Return how many cells of `around` have their centre within `reach` of each centre."""
    present = np.unique(around[around > 0])
    if not present.size:
        return np.zeros(len(centres))
    others = np.asarray(ndimage.center_of_mass(around > 0, around, present))
    tree = spatial.cKDTree(others)
    return np.asarray(tree.query_ball_point(centres, reach, return_length=True), np.float64)
