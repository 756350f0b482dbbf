"""What drawing a cell says about its surroundings: the pixels just outside the outline are not this cell.

They are background or a neighbour. Brightness tells most of them apart: a rim pixel as bright as its cell may be part
of a neighbour that touches. Whoever trains with the rim decides what either kind supervises.

All functions are pure. Axes are YX or ZYX throughout.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.types import Floats, GrayImage, Labels, Mask
from cellsparse_trainer.data.background import EQUAL, RIM, Surroundings, nearest_cells, percentiles


@dataclass(frozen=True, kw_only=True)
class OutlineRim:
    """Unlabelled pixels just outside labelled cells; the arrays have the label image's shape."""

    pixels: Mask
    """True on the rim. A labelled pixel is never on it: inside another labelled cell there is no rim."""
    cell: Labels
    """Label of the nearest cell, which these pixels are not part of; 0 off the rim."""
    distance: Floats
    """Distance to that cell, above 0, in pixels (in stacks: of a plane); infinite off the rim."""


def outline_rim(
    label: Labels, width: float, plane_distance: float = 1.0, around: Surroundings | None = None
) -> OutlineRim:
    """Find the unlabelled pixels within some distance of a labelled cell.

    Args:
        label: Label image: -1 not labelled, 0 background, n > 0 cell n; not changed.
        width: Largest distance in pixels of a plane. Below 1 there is no rim.
        plane_distance: Distance of planes over the distance of pixels in a plane, above 0; stacks only.
        around: As for `likely_background`.
    """
    cells = label > 0
    if not cells.any() or not (label < 0).any():
        nothing = np.zeros(label.shape, bool)
        return OutlineRim(pixels=nothing, cell=nothing.astype(np.int32), distance=np.full(label.shape, np.inf, "f4"))
    away, nearest = nearest_cells(label, plane_distance) if around is None else around.nearest
    pixels = (label < 0) & (away <= width)
    cell = np.where(pixels, nearest, 0).astype(np.int32)
    return OutlineRim(pixels=pixels, cell=cell, distance=np.where(pixels, away, np.inf).astype(np.float32))


def as_bright_as_cell(
    image: GrayImage, label: Labels, rim: OutlineRim, plane_distance: float = 1.0, around: Surroundings | None = None
) -> Mask:
    """Find the pixels of a rim that brightness does not tell from their cell: it may touch a neighbour there.

    Any other rim pixel is background. The measure is that of `likely_background`: how bright the cell is near its
    outline. Where most cells do not differ from their rims, all of the rim is as bright.

    Args:
        image: Intensities.
        label: The label image that the rim was made of; not changed.
        rim: The rim; not changed.
        plane_distance: As for `outline_rim`.
        around: As for `likely_background`.
    """
    ids = np.unique(label[label > 0])
    if not rim.pixels.any():
        return rim.pixels
    fine = (around or Surroundings(image, label, plane_distance)).fine
    inside, outside = _index(label, label > 0, ids), _index(rim.cell, rim.pixels, ids)
    contrast = percentiles(fine, inside, len(ids), 50) - percentiles(fine, outside, len(ids), 50)
    sign = 1.0 if np.nansum(np.sign(contrast)) >= 0 else -1.0  # most cells decide for all
    seen = np.isfinite(contrast)
    if 2 * (sign * contrast[seen] > EQUAL).sum() <= seen.sum():
        return rim.pixels
    edge = percentiles(sign * fine, inside, len(ids), RIM)
    return np.asarray(rim.pixels & (sign * fine + EQUAL >= edge[np.maximum(outside, 0)]))


def _index(owner: Labels, where: Mask, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Return the index of each pixel's cell in `ids`; -1 where it has none."""
    return np.where(where, np.searchsorted(ids, owner), -1)
