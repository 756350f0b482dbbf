"""Star-convex shapes on a grid: StarDist's own targets, in two and three dimensions, from sparse labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

# Not by way of `framework`: these load no TensorFlow, which processes that only make batches do without.
from stardist.geometry import star_dist, star_dist3D
from stardist.rays3d import Rays_GoldenSpiral
from stardist.utils import edt_prob

from cellsparse_common.imaging.types import Floats, Labels, Mask
from cellsparse_stardist.config import Config

OUTSIDE = -3
"""Marks pixels outside the image while a crop is cut; they become -1, not labelled. -2 is `background.LIKELY`."""


@dataclass(frozen=True, kw_only=True)
class Stars:
    """Where rays start and which way they go."""

    grid: tuple[int, ...]
    """Pixels per grid point along each axis."""
    n_rays: int
    """Rays per grid point."""
    anisotropy: tuple[float, float, float] | None = None
    """Anisotropy of cells along Z, Y and X, for stacks only; None: as deep as wide."""

    @staticmethod
    def of(config: Config) -> "Stars":
        """Return what a network of these settings predicts."""
        return Stars(grid=config.grids, n_rays=config.n_rays, anisotropy=config.anisotropy)

    def distances(self, cells: Labels) -> Floats:
        """Return the ray lengths in pixels to the cell's edge at each grid point; 0 off the cells.

        Args:
            cells: Axes YX or ZYX, multiples of the grid, 0 to 65535.

        Returns:
            Axes as the cells', one value per grid point, then the rays.
        """
        if cells.ndim == 2:
            found = star_dist(cells, self.n_rays, grid=self.grid)
        else:
            found = star_dist3D(cells, rays(self.n_rays, self.anisotropy), grid=self.grid)
        return np.asarray(found, np.float32)

    def probabilities(self, cells: Labels, inside: Mask) -> Floats:
        """Return the distance to the cell's edge relative to the cell's largest at each grid point; 0 off the cells.

        Stock StarDist measures it between grid points in 2D, and between pixels in 3D.

        Args:
            cells: Axes YX or ZYX, cells numbered 1 to n.
            inside: The same size, a box; False outside the image, whose border is no edge of a cell.
        """
        every = tuple(slice(None, None, step) for step in self.grid)
        if cells.ndim == 2:
            cells, inside = cells[every], inside[every]
        prob = np.zeros(cells.shape, np.float32)
        axes = range(cells.ndim)
        box = np.ix_(*(inside.any(axis=tuple(other for other in axes if other != axis)) for axis in axes))
        if cells.any():
            prob[box] = edt_prob(cells[box], anisotropy=self.anisotropy)
        return prob if cells.ndim == 2 else prob[every]


@lru_cache(maxsize=4)
def rays(n_rays: int, anisotropy: tuple[float, float, float] | None) -> Any:
    """Return StarDist's directions in 3D: a spiral over the sphere, squeezed as cells are."""
    return Rays_GoldenSpiral(n_rays, anisotropy=anisotropy)


def make_targets(label: Labels, margin: tuple[int, ...], stars: Stars) -> tuple[Floats, Floats]:
    """Compute StarDist's targets for the middle of a label image, as if for the whole image.

    The same numbers as `StarDistData2D` and `StarDistData3D` of `stardist.models` give for an image, except that a cell
    cut by the crop keeps the distances to its real edge. `OUTSIDE` is the image border: rays end there and probability
    does not fall.

    Args:
        label: Axes YX or ZYX, the crop's size + 2 * margin; `OUTSIDE`, -1 not labelled, 0 background, n > 0 cell n.
        margin: Context on each side along each axis, pixels, multiples of the grid.
        stars: Grid and rays.

    Returns:
        prob with one value per grid point of the crop, -1 where there is no supervision, and dist with one more axis:
        the rays.
    """
    cells = _renumber(label)
    known = label[tuple(slice(None, None, step) for step in stars.grid)]
    prob = stars.probabilities(cells, label != OUTSIDE)
    prob[known < 0] = -1
    middle = middle_of(known.shape, tuple(m // step for m, step in zip(margin, stars.grid, strict=True)))
    if not (known > 0).any():
        return prob[middle], np.zeros((*prob[middle].shape, stars.n_rays), np.float32)
    return prob[middle], stars.distances(cells)[middle]


def _renumber(label: Labels) -> Labels:
    """Give the cells the numbers 1 to n (StarDist's code takes 16 bits) and set all else to 0."""
    cells = np.zeros(label.shape, np.int32)
    positive = label > 0
    cells[positive] = np.unique(label[positive], return_inverse=True)[1] + 1
    return cells


def middle_of(shape: Sequence[int], margin: Sequence[int]) -> tuple[slice, ...]:
    """Return the index of an array without a margin on each side along each axis."""
    return tuple(slice(m, n - m) for n, m in zip(shape, margin, strict=True))
