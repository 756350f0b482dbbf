"""Cells as ellipses, or in stacks as ellipsoids, of their second moments, in closed form.

A pixel counts as a unit square, a voxel as a unit cube, so its own second moment (1/12 per axis) is part of the cell's:
one pixel, a line or a cell of one plane still has an ellipse with an extent along every axis, and no fit has to
iterate. All is computed in pixels along each axis: moments follow any stretching of the axes, so the ellipsoid of a
cell is the same one whether planes are as far apart as pixels or not.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Floats, Labels

PIXEL_MOMENT = 1.0 / 12.0


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Moments of n cells, in pixels, with d = 2 axes (YX) or 3 (ZYX).

    Attributes:
        ids: Label of each cell, ascending, int64 (n,).
        area: Number of pixels, float64 (n,).
        centre: Centroid, axes YX or ZYX, float64 (n, d).
        covariance: Second central moments over area, axes YX or ZYX, float64 (n, d, d); always positive definite.
    """

    ids: npt.NDArray[np.int64]
    area: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]


def cell_moments(label: Labels) -> Moments:
    """Compute area, centroid and second moments of every cell in one pass.

    Args:
        label: Label image, axes YX or ZYX; cells are n > 0, all else is left out.

    Returns:
        The moments of every cell that has a pixel.
    """
    at = np.nonzero(label > 0)
    ids, index = np.unique(label[at], return_inverse=True)
    size = len(ids)
    area = np.bincount(index, minlength=size).astype(np.float64)
    centre = np.stack([np.bincount(index, each, size) / area for each in at], axis=1)
    from_centre = [each - middle[index] for each, middle in zip(at, centre.T, strict=True)]
    covariance = np.empty((size, label.ndim, label.ndim))
    for i, j in combinations_with_replacement(range(label.ndim), 2):
        moment = np.bincount(index, from_centre[i] * from_centre[j], size) / area
        covariance[:, i, j] = covariance[:, j, i] = moment + PIXEL_MOMENT * (i == j)
    return Moments(ids=ids.astype(np.int64), area=area, centre=centre, covariance=covariance)


def reach_of(dims: int) -> float:
    """Return the semi-axis of a solid ellipse (2 axes) or ellipsoid (3) over the standard deviation along it."""
    return float(np.sqrt(dims + 2))


def draw(moments: Moments, shape: tuple[int, ...], allowed: Labels | None = None) -> tuple[Labels, Floats]:
    """Draw every cell's ellipse; where ellipses meet, a pixel goes to the one it lies deepest in.

    Args:
        moments: Moments of n cells; an ellipse's semi-axes are the square roots of its covariance's eigenvalues times
            `reach_of` the number of axes: those of the solid ellipse or ellipsoid with this covariance.
        shape: Lengths of the drawing in pixels, axes YX or ZYX.
        allowed: Label image of this shape; a pixel that is not -1 is drawn on by the cell with this label only.

    Returns:
        The owner of each pixel (int32, 0 for none), and its relative radius (float32: 0 at the ellipse's centre, 1 on
        its rim, infinity outside all ellipses), both of the shape asked for.
    """
    owner = np.zeros(shape, np.int32)
    radius = np.full(shape, np.inf, np.float32)
    times = reach_of(len(shape))
    inverse = np.linalg.inv(moments.covariance)
    reach = times * np.sqrt(np.diagonal(moments.covariance, axis1=1, axis2=2))
    low = np.clip(np.ceil(moments.centre - reach), 0, shape).astype(int)
    high = np.clip(np.floor(moments.centre + reach) + 1, 0, shape).astype(int)
    for n, cell in enumerate(moments.ids):
        box = tuple(slice(*ends) for ends in zip(low[n], high[n], strict=True))
        own = np.sqrt(_squared(inverse[n], low[n], high[n], moments.centre[n])).astype(np.float32) / np.float32(times)
        inside = (own <= 1) & (own < radius[box])
        if allowed is not None:
            inside &= (allowed[box] == cell) | (allowed[box] == -1)
        radius[box][inside] = own[inside]
        owner[box][inside] = cell
    return owner, radius


def _squared(
    inverse: npt.NDArray[np.float64],
    low: npt.NDArray[np.int_],
    high: npt.NDArray[np.int_],
    centre: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the squared distance from the centre in standard deviations, for the pixels of a box."""
    away = np.ix_(*(np.arange(*ends) - middle for *ends, middle in zip(low, high, centre, strict=True)))
    total: npt.NDArray[np.float64] = np.zeros([len(each.ravel()) for each in away])
    for i, j in combinations_with_replacement(range(len(away)), 2):
        total += inverse[i, j] * (1 if i == j else 2) * away[i] * away[j]
    return total
