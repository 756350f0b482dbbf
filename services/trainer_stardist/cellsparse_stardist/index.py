"""Where the labelled pixels of one label image are: small, so that a data set can be a stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects, gaussian_filter

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

SMOOTHING = 2.0
"""Pixels; sigma of the blur that separates dark ground from dark noise."""


@dataclass(frozen=True, kw_only=True)
class SampleIndex:
    """Summary of one label image."""

    cells: npt.NDArray[np.int64]
    """Shape (cells, 5): cell number, first row, first column, end row, end column of its bounding box."""
    background: npt.NDArray[np.int64]
    """Shape (rows,): background pixels up to and including each row."""
    dark: float
    """Blurred intensity below which an unlabelled pixel is most likely background; -inf where nobody can tell."""

    @property
    def labelled(self) -> bool:
        """True if there is a cell or a background pixel."""
        return len(self.cells) > 0 or self.background[-1] > 0

    def draw(self, label: Labels, cell: int, background_share: float, rng: np.random.Generator) -> tuple[int, int]:
        """Draw a labelled pixel.

        Args:
            label: The label image of this index.
            cell: Position of a cell in `cells`; -1 for any.
            background_share: Probability of a background pixel instead of a cell's, where there is background.
            rng: Random numbers.

        Returns:
            Row and column.
        """
        if self.background[-1] > 0 and (len(self.cells) == 0 or rng.uniform() < background_share):
            row = int(np.searchsorted(self.background, rng.integers(self.background[-1]), side="right"))
            return row, int(rng.choice(np.flatnonzero(label[row] == 0)))
        number, y0, x0, y1, x1 = self.cells[cell if cell >= 0 else rng.integers(len(self.cells))]
        rows, columns = np.nonzero(label[y0:y1, x0:x1] == number)
        pixel = rng.integers(len(rows))
        return int(y0 + rows[pixel]), int(x0 + columns[pixel])

    def overhang(self, corner: Sequence[int], size: int, grid: int) -> int:
        """Return how far the bounding boxes that touch a window reach out of it, rounded up to a multiple of grid."""
        y, x = corner
        _, y0, x0, y1, x1 = self.cells.T
        touching = (y0 < y + size) & (y1 > y) & (x0 < x + size) & (x1 > x)
        if not touching.any():
            return 0
        reach = [y - y0, x - x0, y1 - y - size, x1 - x - size]
        # One pixel more shows the distance transform that the cell ends there.
        furthest = max(int(r[touching].max()) for r in reach) + grid
        return -(-max(furthest, 0) // grid) * grid


def index_sample(image: Floats, label: Labels) -> SampleIndex:
    """Find the labelled pixels of an image.

    Args:
        image: Axes YX, normalised.
        label: Axes YX, -1 not labelled, 0 background, n > 0 cell n.
    """
    positive = label > 0
    numbers, inverse = np.unique(label[positive], return_inverse=True)
    dense = np.zeros(label.shape, np.int32)
    dense[positive] = inverse + 1
    boxes = [(s[0].start, s[1].start, s[0].stop, s[1].stop) for s in find_objects(dense)]
    cells = np.column_stack([numbers, np.array(boxes, np.int64).reshape(-1, 4)]).astype(np.int64)
    return SampleIndex(cells=cells, background=np.cumsum((label == 0).sum(axis=1)), dark=_dark(image, label))


def blur(image: Floats) -> Floats:
    """Smooth the noise of an image (axes YX) before its intensity is compared with `SampleIndex.dark`."""
    return np.asarray(gaussian_filter(image, SMOOTHING), np.float32)


def _dark(image: Floats, label: Labels) -> float:
    """Darker than half of the labelled background and than nearly all labelled cell pixels; only for bright cells."""
    background, cells = label == 0, label > 0
    if not background.any() or not cells.any() or not (label < 0).any():
        return -np.inf
    smooth = blur(image)
    if np.median(smooth[cells]) <= np.median(smooth[background]):
        return -np.inf
    return float(min(np.median(smooth[background]), np.percentile(smooth[cells], 5)))
