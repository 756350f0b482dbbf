"""Cells as ellipses of their second moments, in closed form.

A pixel counts as a unit square, so its own second moment (1/12 per axis) is part of the cell's: one pixel or a line
still has an ellipse with an area, and no fit has to iterate.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PIXEL_MOMENT = 1.0 / 12.0


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Moments of n cells, in pixels.

    Attributes:
        ids: Label of each cell, ascending, int64 (n,).
        area: Number of pixels, float64 (n,).
        centre: Centroid, axes YX, float64 (n, 2).
        covariance: Second central moments over area, axes YX, float64 (n, 2, 2); always positive definite.
    """

    ids: npt.NDArray[np.int64]
    area: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]


def cell_moments(label: npt.NDArray[np.int32]) -> Moments:
    """Computes area, centroid and second moments of every cell in one pass.

    Args:
        label: Label image, axes YX; cells are n > 0, all else is left out.

    Returns:
        The moments of every cell that has a pixel.
    """
    ys, xs = np.nonzero(label > 0)
    ids, index = np.unique(label[ys, xs], return_inverse=True)
    size = len(ids)
    area = np.bincount(index, minlength=size).astype(np.float64)
    cy = np.bincount(index, ys, size) / area
    cx = np.bincount(index, xs, size) / area
    dy, dx = ys - cy[index], xs - cx[index]
    covariance = np.empty((size, 2, 2))
    covariance[:, 0, 0] = np.bincount(index, dy * dy, size) / area + PIXEL_MOMENT
    covariance[:, 1, 1] = np.bincount(index, dx * dx, size) / area + PIXEL_MOMENT
    covariance[:, 0, 1] = covariance[:, 1, 0] = np.bincount(index, dy * dx, size) / area
    return Moments(ids=ids.astype(np.int64), area=area, centre=np.stack([cy, cx], axis=1), covariance=covariance)


def semi_axes(moments: Moments) -> npt.NDArray[np.float64]:
    """Semi-axes of the ellipses with the cells' second moments.

    Args:
        moments: Moments of n cells.

    Returns:
        Minor and major semi-axis in pixels, float64 (n, 2).
    """
    axes: npt.NDArray[np.float64] = 2.0 * np.sqrt(np.linalg.eigvalsh(moments.covariance))
    return axes


def draw(
    moments: Moments, shape: tuple[int, int], allowed: npt.NDArray[np.int32] | None = None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Draws every cell's ellipse; where ellipses meet, a pixel goes to the one it lies deepest in.

    Args:
        moments: Moments of n cells; an ellipse's semi-axes are twice the square roots of its covariance's eigenvalues.
        shape: Height and width of the drawing in pixels.
        allowed: Label image, axes YX; a pixel that is not -1 is drawn on by the cell with this label only.

    Returns:
        The owner of each pixel (int32 YX, 0 for none), and its relative radius (float32 YX: 0 at the ellipse's centre,
        1 on its rim, infinity outside all ellipses).
    """
    owner = np.zeros(shape, np.int32)
    radius = np.full(shape, np.inf, np.float32)
    inverse = np.linalg.inv(moments.covariance)
    reach = 2.0 * np.sqrt(np.stack([moments.covariance[:, 0, 0], moments.covariance[:, 1, 1]], axis=1))
    low = np.clip(np.ceil(moments.centre - reach), 0, shape).astype(int)
    high = np.clip(np.floor(moments.centre + reach) + 1, 0, shape).astype(int)
    for n, cell in enumerate(moments.ids):
        box = np.s_[low[n, 0] : high[n, 0], low[n, 1] : high[n, 1]]
        dy = np.arange(low[n, 0], high[n, 0])[:, None] - moments.centre[n, 0]
        dx = np.arange(low[n, 1], high[n, 1])[None, :] - moments.centre[n, 1]
        (a, b), (_, c) = inverse[n]
        own = np.sqrt(a * dy * dy + 2 * b * dy * dx + c * dx * dx).astype(np.float32) / 2
        inside = (own <= 1) & (own < radius[box])
        if allowed is not None:
            inside &= (allowed[box] == cell) | (allowed[box] == -1)
        radius[box][inside] = own[inside]
        owner[box][inside] = cell
    return owner, radius
