"""The space of features: comparable axes, how typical a point is, and clusters. All of it depends on its seed alone."""

import numpy as np
import numpy.typing as npt
from scipy import spatial

Points = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

FAR = 5.0
"""Largest robust z-score: what lies further out is far, and no further."""
NEIGHBOURS = 20
"""Neighbours that say how typical a point is."""
ROUNDS = 50
"""Most rounds of k-means."""


def robust_scores(points: Points, reference: Points | None = None) -> Points:
    """Return z-scores (N, F) by the median and the median absolute deviation, between -`FAR` and `FAR`.

    Args:
        points: Features (N, F).
        reference: Points (M, F) whose median and deviation count; None: the points themselves.
    """
    known = points if reference is None else reference
    if not len(known):
        return np.zeros_like(points)
    middle = np.median(known, axis=0)
    spread = 1.4826 * np.median(np.abs(known - middle), axis=0)
    # More than half of the values may be equal: then the standard deviation says how far the others are.
    spread = np.where(spread > 1e-9, spread, known.std(axis=0))
    result: Points = np.clip((points - middle) / np.where(spread > 1e-9, spread, 1.0), -FAR, FAR)
    return result


def typicality(points: Points) -> Points:
    """Return for each point (N, F) 1 / (mean distance to its nearest neighbours), relative to the largest: 0 to 1."""
    if len(points) < 2:
        return np.ones(len(points))
    k = min(NEIGHBOURS, len(points) - 1)
    distances, _ = spatial.cKDTree(points).query(points, k + 1)
    density = 1 / (distances[:, 1:].mean(axis=1) + 1e-3)
    result: Points = density / density.max()
    return result


def k_means(points: Points, k: int, seed: int | list[int]) -> Indices:
    """Return the cluster 0 ... k - 1 of each point (N, F); none is empty.

    The first centres are far from each other (k-means++), and points that are equal may share a cluster, so that there
    can be fewer than k clusters; never more than there are points.
    """
    k = min(k, len(points))
    if k < 1:
        return np.zeros(len(points), np.int64)
    random = np.random.default_rng(seed)
    centres = points[[int(random.integers(len(points)))]]
    for _ in range(k - 1):
        squared = _squared(points, centres).min(axis=1)
        if squared.sum() <= 0:
            break
        centres = np.concatenate([centres, points[[int(random.choice(len(points), p=squared / squared.sum()))]]])
    owner = _squared(points, centres).argmin(axis=1)
    for _ in range(ROUNDS):
        present = np.unique(owner)
        centres = np.stack([points[owner == index].mean(axis=0) for index in present])
        moved = _squared(points, centres).argmin(axis=1)
        if np.array_equal(present[moved], owner):
            break
        owner = moved
    result: Indices = np.unique(owner, return_inverse=True)[1].astype(np.int64)
    return result


def _squared(points: Points, centres: Points) -> Points:
    result: Points = spatial.distance.cdist(points, centres, "sqeuclidean")
    return result
