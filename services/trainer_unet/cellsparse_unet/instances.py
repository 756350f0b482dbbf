"""From class probabilities to cells: by watershed from the centres, or by growing each centre's ellipse back."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

from cellsparse_common.imaging.labels import without_small
from cellsparse_unet.ellipses import Moments, cell_moments, draw, reach_of
from cellsparse_unet.targets import rim_axes

METHODS = ("ellipse", "watershed")
RIM = 1.0  # pixels by which a centre is smaller than its ellipse: its rim belongs to the outer class


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where probabilities become cells.

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

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; allowed: {', '.join(METHODS)}.")
        for name, low, high in (
            ("centre_threshold", 0.05, 0.99),
            ("cell_threshold", 0.05, 0.99),
            ("centre_scale", 0.1, 0.9),
            ("centre_smoothing", 0, 5),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: {low} to {high}.")
        if self.plane_distance <= 0:
            raise ValueError(f"plane_distance is {self.plane_distance}; allowed: above 0.")
        if self.smallest_cell < 0:
            raise ValueError(f"smallest_cell is {self.smallest_cell}; allowed: from 0.")


def cells(probability: npt.NDArray[np.float32], cut: Cut) -> npt.NDArray[np.int32]:
    """Finds the cells.

    Args:
        probability: Probabilities of background, outer and centre, axes (3, Y, X) or (3, Z, Y, X).
        cut: Method and thresholds.

    Returns:
        Label image, int32 YX or ZYX: 0 background, 1 to n cells.
    """
    sigma = [cut.centre_smoothing / cut.plane_distance, cut.centre_smoothing, cut.centre_smoothing]
    smooth = ndimage.gaussian_filter(probability[2], sigma[1 - probability.ndim :])
    centres, found = ndimage.label(smooth >= cut.centre_threshold)
    if not found:
        return np.zeros(probability.shape[1:], np.int32)
    centres = centres.astype(np.int32)
    labels = _watershed(probability, centres, cut) if cut.method == "watershed" else _ellipses(centres, cut)
    return without_small(labels, cut.smallest_cell)


def _watershed(probability: npt.NDArray[np.float32], centres: npt.NDArray[np.int32], cut: Cut) -> npt.NDArray[np.int32]:
    mask = (probability[0] <= 1 - cut.cell_threshold) | (centres > 0)
    labels: npt.NDArray[np.int32] = watershed(probability[0] - probability[2], centres, mask=mask).astype(np.int32)
    return labels


def _ellipses(centres: npt.NDArray[np.int32], cut: Cut) -> npt.NDArray[np.int32]:
    moments = cell_moments(centres)
    values, vectors = np.linalg.eigh(moments.covariance)
    reach = reach_of(centres.ndim)
    axes = rim_axes(centres.ndim, cut.plane_distance)
    rim = RIM if len(axes) == centres.ndim else RIM * np.linalg.norm(vectors[:, axes], axis=1)
    grown = ((reach * np.sqrt(values) + rim) / (reach * cut.centre_scale)) ** 2
    covariance = np.einsum("nij,nj,nkj->nik", vectors, grown, vectors)
    bigger = Moments(ids=moments.ids, area=moments.area, centre=moments.centre, covariance=covariance)
    return draw(bigger, centres.shape)[0]
