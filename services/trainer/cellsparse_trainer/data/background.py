"""Likely background beside and between labelled cells, so that a network is not left to guess there.

People label cells. A network that never sees background far from cells answers at random there. One that sees none at
all learns "cell everywhere". Where no background is labelled right beside a cell, nothing says where the cell ends. The
brightness of the labelled pixels closes these gaps, with labelled background and without. Cells are labelled as a
whole, so a pixel beside one is background or a neighbour. It is background if it is further from the cell's brightness
than the cell's own rim. Any other pixel as dark as that background (as bright, around dark cells) is background, too.

All functions are pure. Axes are YX or ZYX throughout.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.types import GrayImage, Labels, Mask

LIKELY = -2
"""Label of unlabelled pixels that are most likely background, where -1 is not labelled and 0 labelled background."""

NOISE = 1.0
"""Pixels; sigma of the blur that evens out noise beside cells and keeps their outlines."""
GRAIN = 2.0
"""Pixels; sigma of the blur that evens out noise between cells and keeps cells apart."""
REACH = 4.0
"""Pixels from a labelled cell that count as beside it."""
RIM = 10.0
"""Percentile of a cell's pixels, counted from the background's side, that is as bright as its rim."""
DIMMEST = 5.0
"""Percentile of all labelled cell pixels below which a pixel is background in any case."""
LOWEST = 5.0
"""Percentile of the background whose distance to the median is the width of the background on the other side, too."""
GLOW = 0.1
"""Share of the way from the median of the background to the glow beside cells that still is background."""
EQUAL = 1e-5
"""Intensities, 0 to 1, this close are the same: a blur rounds, and a 16 bit camera resolves no smaller steps."""


@dataclass(frozen=True, kw_only=True)
class BackgroundModel:
    """How bright the background of an image is."""

    sign: float
    """1.0 for bright cells on a dark background, -1.0 for dark cells on a bright one."""
    limit: float
    """Largest sign * intensity, after a blur of `GRAIN`, that is most likely background."""
    plane_distance: float = 1.0
    """Distance of planes over the distance of pixels in a plane, above 0; stacks only."""

    def covers(self, image: GrayImage) -> Mask:
        """Find the pixels of the image, or of a window of it, that are as dark (or bright) as its background."""
        return self.covers_blurred(blurred(image, GRAIN, self.plane_distance))

    def covers_blurred(self, coarse: GrayImage) -> Mask:
        """Find them as `covers`, given the image after its blur."""
        return np.asarray(np.float32(self.sign) * coarse <= self.limit)


class Surroundings:
    """What several functions want to know of an image and its labelled cells; each is made once, when first asked for.

    Args:
        image: Intensities; not changed while this is used.
        label: As for `likely_background`; not changed either.
        plane_distance: As for `likely_background`.
    """

    def __init__(self, image: GrayImage, label: Labels, plane_distance: float = 1.0) -> None:
        self.image, self._label, self._plane_distance = image, label, plane_distance

    @cached_property
    def fine(self) -> GrayImage:
        """The image after a blur of `NOISE`."""
        return blurred(self.image, NOISE, self._plane_distance)

    @cached_property
    def coarse(self) -> GrayImage:
        """The image after a blur of `GRAIN`."""
        return blurred(self.image, GRAIN, self._plane_distance)

    @cached_property
    def nearest(self) -> tuple[npt.NDArray[np.float64], Labels]:
        """See `nearest_cells`."""
        return nearest_cells(self._label, self._plane_distance)


def likely_background(
    image: GrayImage, label: Labels, plane_distance: float = 1.0, around: Surroundings | None = None
) -> Mask:
    """Find unlabelled pixels that are background in all likelihood.

    Nothing is found where brightness does not separate half of the labelled cells from their background.

    Args:
        image: Intensities.
        label: Label image: -1 not labelled, 0 background, n > 0 cell n; not changed.
        plane_distance: Distance of planes over the distance of pixels in a plane, above 0; stacks only.
        around: Those of the same image and labels, where they serve others, too.
    """
    around = around or Surroundings(image, label, plane_distance)
    found = _look(label, plane_distance, around)
    if found is None:
        return np.zeros(label.shape, bool)
    model, beside = found
    return beside | (model.covers_blurred(around.coarse) & (label < 0))


def fit_background(image: GrayImage, label: Labels, plane_distance: float = 1.0) -> BackgroundModel | None:
    """Learn from the labels how bright the background is; None where they do not show it.

    Args:
        image: As for `likely_background`.
        label: As for `likely_background`.
        plane_distance: As for `likely_background`.
    """
    found = _look(label, plane_distance, Surroundings(image, label, plane_distance))
    return None if found is None else found[0]


def _look(label: Labels, plane_distance: float, around: Surroundings) -> tuple[BackgroundModel, Mask] | None:
    """Return the model, and unlabelled pixels beside labelled cells that are darker than the cells' rims."""
    cells, unknown, given = label > 0, label < 0, label == 0
    if not cells.any() or not unknown.any():
        return None
    distance, nearest = around.nearest
    beside = unknown & (distance <= REACH)
    ids = np.unique(label[cells])
    owner = np.searchsorted(ids, nearest)  # of each pixel the nearest cell, as an index into ids
    fine = around.fine
    inside = percentiles(fine, np.where(cells, owner, -1), len(ids), 50)
    if given.any():
        outside = np.full(len(ids), np.median(fine[given]))
    else:
        outside = percentiles(fine, np.where(beside, owner, -1), len(ids), 50)
    if np.isnan(outside).all():
        return None
    # Each cell is compared with its own surroundings: the glow around a bright cell may outshine a dim one.
    sign = 1.0 if np.nansum(np.sign(inside - outside)) >= 0 else -1.0
    fine, coarse = sign * fine, sign * around.coarse
    rims = percentiles(fine, np.where(cells, owner, -1), len(ids), RIM)
    clear = sign * outside + EQUAL < rims
    # Of two cells one suffices if there is no doubt: the darker one may be no brighter than the other's glow.
    evident = clear & (rims - sign * outside > sign * inside - rims)
    if 2 * clear.sum() + evident.any() <= len(ids):
        return None
    beside &= fine + EQUAL < rims[owner]
    limit = _limit(coarse, cells, given if given.any() else beside & clear[owner])
    if not given.any():
        limit = _dark_end(coarse[unknown], limit)
    return BackgroundModel(sign=sign, limit=limit, plane_distance=plane_distance), beside


def nearest_cells(label: Labels, plane_distance: float) -> tuple[npt.NDArray[np.float64], Labels]:
    """Return each pixel's distance to the nearest labelled cell, in pixels of a plane, and that cell; there is one."""
    distance, pixel = ndimage.distance_transform_edt(
        label <= 0, sampling=pixel_grid(label.ndim, plane_distance), return_indices=True
    )
    return distance, label[tuple(pixel)]


def pixel_grid(axes: int, plane_distance: float) -> tuple[float, ...]:
    """Return the distance of neighbours along each axis in pixels of a plane."""
    return (plane_distance, 1.0, 1.0)[-axes:]


def blurred(image: GrayImage, sigma: float, plane_distance: float) -> GrayImage:
    """Blur an image; sigma is in pixels of a plane."""
    sigmas = [sigma / step for step in pixel_grid(image.ndim, plane_distance)]
    return np.asarray(ndimage.gaussian_filter(image, sigmas), np.float32)


def _limit(dark: GrayImage, cells: Mask, background: Mask) -> float:
    """Return the median of the known background, or what is darker than nearly all of the labelled cells."""
    limit = float(np.median(dark[background])) if background.any() else -np.inf
    if limit + 2 * EQUAL < np.percentile(dark[cells], RIM):
        return limit + EQUAL
    return float(np.percentile(dark[cells], DIMMEST))


def _dark_end(dark: GrayImage, limit: float) -> float:
    """Return where the background ends if it is as wide above its median as below, or a little wider without noise.

    The known background lies beside labelled cells, which glow: dim cells further away may be darker.
    """
    background = dark[dark <= limit]
    if not background.size:
        return limit
    middle, lowest = np.percentile(background, (50, LOWEST))
    return min(limit, float(middle + max(middle - lowest, GLOW * (limit - middle))) + EQUAL)


def percentiles(
    values: GrayImage, owner: npt.NDArray[np.int64], cells: int, percentile: float
) -> npt.NDArray[np.float64]:
    """Return a percentile of the values of each owner 0 ... cells - 1; NaN where it has none. -1 belongs to nobody."""
    return np.asarray(
        ndimage.labeled_comprehension(
            values, owner, np.arange(cells), lambda own: np.percentile(own, percentile), np.float64, np.nan
        )
    )
