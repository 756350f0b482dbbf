"""Likely background beside and between labelled cells, so that a network is not left to guess there.

People label cells. A network that never sees ground far from cells answers at random there, one that sees no ground at
all learns "cell everywhere", and where none is labelled right beside a cell, nothing says where the cell ends. The
brightness of what is labelled closes these gaps, with labelled background and without. Cells are labelled as a whole,
so a pixel beside one is ground or a neighbour, and it is ground if it is further from the cell's brightness than the
cell's own rim. And what is anywhere as dark as that ground (or as bright, around dark cells), is ground, too.

All functions are pure. Axes are YX or ZYX throughout.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

NOISE = 1.0
"""Pixels; sigma of the blur that evens out noise beside cells and keeps their outlines."""
GRAIN = 2.0
"""Pixels; sigma of the blur that evens out noise between cells and keeps cells apart."""
REACH = 4.0
"""Pixels from a labelled cell that count as beside it."""
RIM = 10.0
"""Percentile of a cell's pixels, counted from the ground's side, that is as bright as its rim."""
DIMMEST = 5.0
"""Percentile of all labelled cell pixels below which ground lies in any case."""
LOWEST = 5.0
"""Percentile of the darkest ground whose distance to its median ends the ground on the other side, too."""
GLOW = 0.1
"""Share of the way from the middle of the ground to the glow beside cells that still is ground."""
EQUAL = 1e-5
"""Intensities, 0 to 1, this close are the same: a blur rounds, and a 16 bit camera tells no smaller steps."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """How bright the ground of an image is."""

    sign: float
    """1.0 for bright cells on dark ground, -1.0 for dark cells on bright ground."""
    limit: float
    """Largest sign * intensity, after a blur of `GRAIN`, that is most likely ground."""
    plane_distance: float = 1.0
    """Distance of planes over the distance of pixels in a plane, above 0; stacks only."""

    def covers(self, image: Floats) -> Mask:
        """Find the pixels of the image, or of a window of it, that are as far on the ground's side as ground is."""
        return np.asarray(np.float32(self.sign) * _blurred(image, GRAIN, self.plane_distance) <= self.limit)


def likely_background(image: Floats, label: Labels, plane_distance: float = 1.0) -> Mask:
    """Find unlabelled pixels that are background in all likelihood.

    Nothing is found where brightness does not tell more than half of the labelled cells from their ground.

    Args:
        image: Intensities.
        label: Label image: -1 not labelled, 0 background, n > 0 cell n; not changed.
        plane_distance: Distance of planes over the distance of pixels in a plane, above 0; stacks only.
    """
    found = _look(image, label, plane_distance)
    if found is None:
        return np.zeros(label.shape, bool)
    ground, beside = found
    return beside | (ground.covers(image) & (label < 0))


def find_ground(image: Floats, label: Labels, plane_distance: float = 1.0) -> Ground | None:
    """Learn from the labels how bright the ground is; None where they do not tell. Arguments as `likely_background`."""
    found = _look(image, label, plane_distance)
    return None if found is None else found[0]


def _look(image: Floats, label: Labels, plane_distance: float) -> tuple[Ground, Mask] | None:
    """Return the ground, and unlabelled pixels beside labelled cells that are darker than the cells' rims."""
    cells, unknown, given = label > 0, label < 0, label == 0
    if not cells.any() or not unknown.any():
        return None
    distance, nearest = ndimage.distance_transform_edt(
        ~cells, sampling=_grid(label.ndim, plane_distance), return_indices=True
    )
    beside = unknown & (distance <= REACH)
    ids = np.unique(label[cells])
    owner = np.searchsorted(ids, label[tuple(nearest)])  # of each pixel the nearest cell, by its place in ids
    fine = _blurred(image, NOISE, plane_distance)
    inside = _percentiles(fine, np.where(cells, owner, -1), len(ids), 50)
    if given.any():
        outside = np.full(len(ids), np.median(fine[given]))
    else:
        outside = _percentiles(fine, np.where(beside, owner, -1), len(ids), 50)
    if np.isnan(outside).all():
        return None
    # Each cell is compared with its own surroundings: the glow around a bright cell may outshine a dim one.
    sign = 1.0 if np.nansum(np.sign(inside - outside)) >= 0 else -1.0
    fine, coarse = sign * fine, sign * _blurred(image, GRAIN, plane_distance)
    rims = _percentiles(fine, np.where(cells, owner, -1), len(ids), RIM)
    clear = sign * outside + EQUAL < rims
    if 2 * clear.sum() <= len(ids):
        return None
    beside &= fine + EQUAL < rims[owner]
    limit = _limit(coarse, cells, given if given.any() else beside & clear[owner])
    if not given.any():
        limit = _dark_end(coarse[unknown], limit)
    return Ground(sign=sign, limit=limit, plane_distance=plane_distance), beside


def _grid(axes: int, plane_distance: float) -> tuple[float, ...]:
    """Return the distance of neighbours along each axis in pixels of a plane."""
    return (plane_distance, 1.0, 1.0)[-axes:]


def _blurred(image: Floats, sigma: float, plane_distance: float) -> Floats:
    sigmas = [sigma / step for step in _grid(image.ndim, plane_distance)]
    return np.asarray(ndimage.gaussian_filter(image, sigmas), np.float32)


def _limit(dark: Floats, cells: Mask, ground: Mask) -> float:
    """Return the median of the known ground, or what is darker than nearly all of the labelled cells."""
    limit = float(np.median(dark[ground])) if ground.any() else -np.inf
    if limit + 2 * EQUAL < np.percentile(dark[cells], RIM):
        return limit + EQUAL
    return float(np.percentile(dark[cells], DIMMEST))


def _dark_end(dark: Floats, limit: float) -> float:
    """Return where the ground ends if it is as wide above its median as below, or a little wider without noise.

    What is known of the ground comes from beside labelled cells, which glow: dim cells further away may be darker.
    """
    ground = dark[dark <= limit]
    if not ground.size:
        return limit
    middle, lowest = np.percentile(ground, (50, LOWEST))
    return min(limit, float(middle + max(middle - lowest, GLOW * (limit - middle))) + EQUAL)


def _percentiles(
    values: Floats, owner: npt.NDArray[np.int64], cells: int, percentile: float
) -> npt.NDArray[np.float64]:
    """Return a percentile of the values of each owner 0 ... cells - 1; NaN where it has none. -1 belongs to nobody."""
    return np.asarray(
        ndimage.labeled_comprehension(
            values, owner, np.arange(cells), lambda own: np.percentile(own, percentile), np.float64, np.nan
        )
    )
