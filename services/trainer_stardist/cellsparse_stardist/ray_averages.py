"""The outline of a cell as all of its grid points see it, not only the one that its star is taken from.

Non-maximum suppression keeps one star per cell and throws away those of the cell's other grid points. Each of them
measured the same outline from another place, with another error. Their mean is nearer to the truth than one of them.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Floats, Labels

Points: TypeAlias = npt.NDArray[np.int64]
"""Shape (points, 2): positions along Y and X."""

PROB_POWER = 2
"""Power of its probability that a grid point's opinion weighs with: near the outline directions are hard to tell."""


def owners(labels: Labels, points: Points) -> npt.NDArray[np.int64]:
    """Return the cell that each grid point lies in: 0, 1 ... for the cells 1, 2 ..., -1 for none.

    Args:
        labels: The cells as their stars draw them, axes YX.
        points: Shape (points, 2): positions along Y and X.
    """
    rows, columns = np.minimum(points, np.array(labels.shape) - 1).T
    return np.asarray(labels[rows, columns], np.int64) - 1


def averaged(
    dist: Floats, points: Points, voices: Floats, places: Points, prob: Floats, owner: npt.NDArray[np.int64]
) -> Floats:
    """Return ray lengths of cells moved to where their grid points see the outline, on average.

    Where a ray of the cell ends, another grid point of the cell looks in that direction, too. How much farther or
    nearer it sees the outline moves the ray's end, by that length as it projects on the ray.

    Args:
        dist: Shape (cells, rays): ray lengths of the stars that were kept, pixels.
        points: Shape (cells, 2): where these stars are.
        voices: Shape (points, rays): ray lengths at all grid points of cells.
        places: Shape (points, 2): where these are.
        prob: Shape (points,): their probabilities.
        owner: Shape (points,): the cell, from 0, that each belongs to; -1: none, it is left out.
    """
    order = np.argsort(owner, kind="stable")
    order = order[np.searchsorted(owner[order], 0) :]
    if not len(order):
        return dist
    owner, voices, places, prob = owner[order], voices[order], places[order], prob[order]
    n_rays = dist.shape[1]
    angles = np.arange(n_rays, dtype=np.float32) * np.float32(2 * np.pi / n_rays)
    along_y, along_x = np.sin(angles), np.cos(angles)
    apart = (places - points[owner]).astype(np.float32)
    y, x = dist[owner] * along_y - apart[:, :1], dist[owner] * along_x - apart[:, 1:]
    length = np.hypot(y, x)
    farther = _looked(voices, np.arctan2(y, x)) - length
    projected = farther * (y * along_y + x * along_x) / np.maximum(length, np.float32(1e-6))
    weight = (prob**PROB_POWER).astype(np.float32)
    starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
    moved = np.add.reduceat(weight[:, np.newaxis] * projected, starts) / np.add.reduceat(weight, starts)[:, np.newaxis]
    result = np.array(dist, np.float32)
    result[owner[starts]] = np.maximum(result[owner[starts]] + moved, 0)
    return result


def _looked(voices: Floats, angles: Floats) -> Floats:
    """Return each star's length in directions between its rays, by linear interpolation.

    Args:
        voices: Shape (points, rays).
        angles: Shape (points, any number), radians.
    """
    n_rays = voices.shape[1]
    at = angles * np.float32(n_rays / (2 * np.pi))
    low = np.floor(at)
    part = at - low
    first = low.astype(np.int64) % n_rays
    rows = np.arange(len(voices))[:, np.newaxis]
    return np.asarray(voices[rows, first] * (1 - part) + voices[rows, (first + 1) % n_rays] * part, np.float32)
