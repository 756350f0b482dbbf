"""Where the labelled pixels of one label image are: small, so that a data set can be a stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from cellsparse_trainer.data.background import BackgroundModel, fit_background

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

PLANE_DISTANCE = 2.0
"""Distance of a stack's planes in pixels that the ground is looked for with: planes mostly lie further apart."""


@dataclass(frozen=True, kw_only=True)
class SampleIndex:
    """Summary of one label image."""

    cells: npt.NDArray[np.int64]
    """Shape (cells, 1 + 2 * axes): cell number, start of its bounding box along each axis, then the ends."""
    background: npt.NDArray[np.int64]
    """Background pixels up to and including each row (each plane of a stack)."""
    ground: BackgroundModel | None
    """Which unlabelled pixels are likely background; None where nobody can tell."""

    @property
    def labelled(self) -> bool:
        """True if there is a cell or a background pixel."""
        return len(self.cells) > 0 or self.background[-1] > 0

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Shape (cells, axes): where the bounding boxes start."""
        return self.cells[:, 1 : 1 + self.cells.shape[1] // 2]

    @property
    def stops(self) -> npt.NDArray[np.int64]:
        """Shape (cells, axes): where the bounding boxes end."""
        return self.cells[:, 1 + self.cells.shape[1] // 2 :]

    def draw(self, label: Labels, cell: int, background_share: float, rng: np.random.Generator) -> tuple[int, ...]:
        """Draw a labelled pixel.

        Args:
            label: The label image of this index.
            cell: Position of a cell in `cells`; -1 for any.
            background_share: Probability of a background pixel instead of a cell's, where there is background.
            rng: Random numbers.

        Returns:
            Its place along each axis.
        """
        if self.background[-1] > 0 and (len(self.cells) == 0 or rng.uniform() < background_share):
            row = int(np.searchsorted(self.background, rng.integers(self.background[-1]), side="right"))
            within = int(rng.choice(np.flatnonzero(label[row] == 0)))
            return row, *(int(i) for i in np.unravel_index(within, label.shape[1:]))
        position = cell if cell >= 0 else rng.integers(len(self.cells))
        start = self.starts[position]
        box = tuple(slice(a, b) for a, b in zip(start, self.stops[position], strict=True))
        places = np.nonzero(label[box] == self.cells[position, 0])
        pixel = rng.integers(len(places[0]))
        return tuple(int(a + place[pixel]) for a, place in zip(start, places, strict=True))

    def overhang(self, corner: Sequence[int], size: Sequence[int], grid: Sequence[int]) -> tuple[int, ...]:
        """Return how far the bounding boxes that touch a window reach out of it.

        Args:
            corner: Where the window starts along each axis.
            size: Pixels of the window along each axis.
            grid: Pixels per grid point along each axis.

        Returns:
            Pixels along each axis, multiples of grid; the last two axes, which crops are turned in, have the same.
        """
        starts, stops = self.starts, self.stops
        first, last = np.asarray(corner), np.add(corner, size)
        touching = ((starts < last) & (stops > first)).all(axis=1)
        if not touching.any():
            return (0,) * len(size)
        # One grid point more shows the distance transform that the cell ends there.
        reach = np.maximum(first - starts[touching], stops[touching] - last).max(axis=0) + grid
        reach[-2:] = reach[-2:].max()
        return tuple(-(-max(int(r), 0) // g) * g for r, g in zip(reach, grid, strict=True))


def index_sample(image: Floats, label: Labels) -> SampleIndex:
    """Find the labelled pixels of an image.

    Args:
        image: Axes YX or ZYX, normalised.
        label: Axes as the image's, -1 not labelled, 0 background, n > 0 cell n.
    """
    positive = label > 0
    numbers, inverse = np.unique(label[positive], return_inverse=True)
    dense = np.zeros(label.shape, np.int32)
    dense[positive] = inverse + 1
    boxes = [(*(s.start for s in box), *(s.stop for s in box)) for box in find_objects(dense)]
    cells = np.column_stack([numbers, np.array(boxes, np.int64).reshape(-1, 2 * label.ndim)]).astype(np.int64)
    background = np.cumsum((label == 0).sum(axis=tuple(range(1, label.ndim))))
    return SampleIndex(cells=cells, background=background, ground=fit_background(image, label, PLANE_DISTANCE))
