"""Star-convex shapes on a grid: StarDist's own targets, in two and three dimensions."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

# Not by way of `framework`: these load no TensorFlow, which processes that only make batches do without.
from stardist.geometry import star_dist, star_dist3D
from stardist.rays3d import Rays_GoldenSpiral
from stardist.utils import edt_prob

from cellsparse_stardist.config import Config

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Stars:
    """Where rays start and which way they go."""

    grid: tuple[int, ...]
    """Pixels per grid point along each axis."""
    n_rays: int
    """Rays per grid point."""
    anisotropy: tuple[float, float, float] | None = None
    """Of cells along Z, Y and X, for stacks only; None: as deep as wide."""

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

    def probabilities(self, cells: Labels, inside: npt.NDArray[np.bool_]) -> Floats:
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
