"""From class probabilities to cells.

They are found by watershed from the centres, or by growing each centre's ellipse back.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.morphology import h_maxima, local_maxima
from skimage.segmentation import watershed

from cellsparse_common.imaging.labels import without_small
from cellsparse_common.imaging.types import Floats, Labels, Mask
from cellsparse_trainer.config.backend_config import check_values
from cellsparse_trainer.data.background import pixel_grid
from cellsparse_unet.config import Config
from cellsparse_unet.ellipses import Moments, cell_moments, draw, reach_of
from cellsparse_unet.targets import rim_axes

METHODS = ("ellipse", "watershed")
RIM = 1.0
"""Pixels by which a centre is smaller than its ellipse: its rim belongs to the outer class."""
NECK_NOISE = 1.0
"""Sigma in pixels of the blur that keeps ragged outlines of centres from splitting them."""
DEFAULT_CENTRE = 0.4
"""Centre threshold for ellipses; "outline" targets, whose centres are sharper, have `TRUE_CENTRE`."""
TRUE_CENTRE = 0.6
DEFAULT_SMOOTHING = 1.5
"""Sigma in pixels by which centres are smoothed: less finds parts of large cells as cells, more loses small ones."""
CELL_ODDS = 2.0
"""Odds of "cell" from which a pixel belongs to one. A labelled cell is outlined all around, the background beside it on
one side only: even odds give outlines that are too wide."""
TRUE_ODDS = 1.0
"""The same where targets have the cells' own shape, which does not reach over the background beside them."""


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When probabilities become cells.

    Raises:
        ValueError: A value is outside its range.
    """

    method: str
    """One of `METHODS`."""
    centre_threshold: float
    """Smallest centre probability, 0.05 to 0.99."""
    cell_threshold: float
    """Smallest probability of outer or centre for a watershed to enter a pixel, 0.05 to 0.99."""
    centre_scale: float
    """Size of the centre ellipse relative to the cell's, 0.1 to 0.9."""
    centre_smoothing: float
    """Sigma in pixels by which centre probabilities are smoothed first, 0 to 5; small nets leave holes in centres."""
    smallest_cell: int
    """Smallest cell kept, in pixels, from 0."""
    plane_distance: float = 1.0
    """Distance of planes over the distance of pixels in a plane, above 0; stacks only."""
    split_depth: float = 0.0
    """Pixels, 0 to 10: a centre with a neck that much narrower, on either side, than its parts is split; 0: none is."""

    def __post_init__(self) -> None:
        check_values(self, _RANGES, {"method": METHODS})
        if self.plane_distance <= 0:
            raise ValueError(f"plane_distance is {self.plane_distance}; allowed: above 0.")
        if self.smallest_cell < 0:
            raise ValueError(f"smallest_cell is {self.smallest_cell}; allowed: from 0.")

    def to_dict(self) -> dict[str, Any]:
        """Return all of them by name."""
        return asdict(self)


_RANGES = {
    "centre_threshold": (0.05, 0.99),
    "cell_threshold": (0.05, 0.99),
    "centre_scale": (0.1, 0.9),
    "centre_smoothing": (0, 5),
    "split_depth": (0, 10),
}


def find_cells(probability: Floats, thresholds: Thresholds) -> Labels:
    """Find the cells.

    Args:
        probability: Probabilities of background, outer and centre, axes (3, Y, X) or (3, Z, Y, X).
        thresholds: Method and thresholds.

    Returns:
        Label image, axes YX or ZYX: 0 background, 1 to n cells.
    """
    blur = thresholds.centre_smoothing
    sigma = [blur / thresholds.plane_distance, blur, blur]
    smooth = ndimage.gaussian_filter(probability[2], sigma[1 - probability.ndim :])
    centres, found = ndimage.label(smooth >= thresholds.centre_threshold)
    if not found:
        return np.zeros(probability.shape[1:], np.int32)
    centres = _split(centres, thresholds) if thresholds.split_depth else centres.astype(np.int32)
    if thresholds.method == "watershed":
        labels = _watershed(probability, centres, thresholds)
    else:
        labels = _ellipses(centres, thresholds)
    return without_small(labels, thresholds.smallest_cell)


def _split(centres: Labels, thresholds: Thresholds) -> Labels:
    """Cut merged centres at their necks: each part that is deeper than its neck is one (Malpica 1997)."""
    inside = centres > 0
    depth = ndimage.distance_transform_edt(inside, sampling=pixel_grid(inside.ndim, thresholds.plane_distance))
    sigmas = [NECK_NOISE / step for step in pixel_grid(inside.ndim, thresholds.plane_distance)]
    depth = np.where(inside, ndimage.gaussian_filter(depth, sigmas), 0)
    tops = _tops(depth, centres, thresholds.split_depth)
    parts, found = ndimage.label(tops, np.ones((3,) * inside.ndim))
    # What is too shallow to have a top of its own stays whole.
    missed = np.setdiff1d(np.arange(1, centres.max() + 1), centres[tops])
    parts = np.where(np.isin(centres, missed), centres + found, parts)
    return np.asarray(watershed(-depth, parts, mask=inside), np.int32)


def _tops(depth: Floats, centres: Labels, height: float) -> Mask:
    """Find the maxima of each centre's depth that rise above their saddle by a height; its only one in any case."""
    peaks, found = ndimage.label(local_maxima(depth).astype(bool) & (centres > 0), np.ones((3,) * depth.ndim))
    owners = ndimage.maximum(centres, peaks, np.arange(1, found + 1)).astype(int)
    counts = np.bincount(owners, minlength=int(centres.max()) + 1)
    tops = (peaks > 0) & (counts[centres] == 1)
    boxes = ndimage.find_objects(centres)
    for number in np.flatnonzero(counts > 1):  # few of them: h_maxima of a whole image is slow
        box = boxes[number - 1]
        own = centres[box] == number
        part = np.pad(np.where(own, depth[box], 0), 1)
        tops[box] |= h_maxima(part, height)[(slice(1, -1),) * depth.ndim].astype(bool) & own
    return np.asarray(tops)


def _watershed(probability: Floats, centres: Labels, thresholds: Thresholds) -> Labels:
    mask = (probability[0] <= 1 - thresholds.cell_threshold) | (centres > 0)
    labels: Labels = watershed(probability[0] - probability[2], centres, mask=mask).astype(np.int32)
    return labels


def _ellipses(centres: Labels, thresholds: Thresholds) -> Labels:
    moments = cell_moments(centres)
    values, vectors = np.linalg.eigh(moments.covariance)
    reach = reach_of(centres.ndim)
    axes = rim_axes(centres.ndim, thresholds.plane_distance)
    rim = RIM if len(axes) == centres.ndim else RIM * np.linalg.norm(vectors[:, axes], axis=1)
    grown = ((reach * np.sqrt(values) + rim) / (reach * thresholds.centre_scale)) ** 2
    covariance = np.einsum("nij,nj,nkj->nik", vectors, grown, vectors)
    bigger = Moments(ids=moments.ids, area=moments.area, centre=moments.centre, covariance=covariance)
    return draw(bigger, centres.shape)[0]


def default_thresholds(config: Config) -> Thresholds:
    """Return the thresholds to use before tuning: those that the settings fix, and defaults for the others."""
    weights = config.class_weights
    # Weighting a class tilts the odds that the network learns; these correspond to CELL_ODDS without weights.
    outline = config.target_shape == "outline"
    odds = (TRUE_ODDS if outline else CELL_ODDS) * weights[1] / weights[0]
    centre = TRUE_CENTRE if outline else DEFAULT_CENTRE
    return Thresholds(
        method="ellipse" if config.instance_method == "ellipse" else "watershed",
        centre_threshold=centre if config.centre_threshold is None else config.centre_threshold,
        cell_threshold=float(np.clip(odds / (1 + odds), 0.05, 0.99)),
        centre_scale=config.centre_scale,
        centre_smoothing=DEFAULT_SMOOTHING if config.centre_smoothing is None else config.centre_smoothing,
        smallest_cell=0,
        plane_distance=config.plane_distance,
        split_depth=config.split_depth,
    )
