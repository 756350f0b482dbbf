"""Sparsifying one image: keep some cells and some background, set all else to -1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.disk_array import in_bands, release, zeros
from cellsparse_common.imaging.types import Indices, Labels
from cellsparse_sparsifier.background import Background, mark_background, run_pixels
from cellsparse_sparsifier.cells import Cells, measure_cells
from cellsparse_sparsifier.selection import Mode, budget, select


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to keep. Exactly one of `k`, `total_cells` and `total_percent` is given.

    Attributes:
        mode: Which cells.
        background: Which background.
        distance: Pixels, 1 to 1024, for SHIFTED and RING.
        seed: Seed of RANDOM, from 0.
        k: Per image, from 1: 2k cells, for MINMAX k on either side.
        total_cells: Cells over all images, from 1.
        total_percent: Percent of the candidates over all images, above 0 to 100.
        channel: Channel that the intensity is taken from: its number from 0 or its name; empty: the mean of all.
    """

    mode: Mode
    background: Background
    distance: int = 10
    seed: int = 0
    k: int | None = None
    total_cells: int | None = None
    total_percent: float | None = None
    channel: str = ""

    def __post_init__(self) -> None:
        amounts = (self.k, self.total_cells, self.total_percent)
        if sum(amount is not None for amount in amounts) != 1:
            raise ValueError(f"exactly one of k, total_cells and total_percent is needed, got {amounts}")
        if any(amount is not None and not amount > 0 for amount in amounts):
            raise ValueError(f"the amount must be above 0, got {amounts}")
        if self.distance < 1 or self.seed < 0:
            raise ValueError(f"distance must be at least 1 and seed at least 0, got {self.distance} and {self.seed}")

    def count(self, candidates: int) -> int:
        """Return the number of cells to keep of this many candidates."""
        if self.k is not None:
            return 2 * self.k
        return budget(candidates, total_cells=self.total_cells, total_percent=self.total_percent)


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """A sparsified label image.

    Attributes:
        label: int32 YX or ZYX: -1 not labelled, 0 background, n > 0 cell n, numbered as in the dense label image.
        kept: Labels of the kept cells, int64, ascending.
        candidates: Number of candidate cells in the dense label image.
    """

    label: Labels
    kept: Indices
    candidates: int


def sparsify(
    image: npt.NDArray[np.generic],
    label: npt.NDArray[np.integer[Any]],
    settings: Settings,
    *,
    seed: int | list[int] | None = None,
    spacing: Sequence[float] = (),
) -> Sparse:
    """Sparsify one image, in time linear in its pixels. The inputs are not changed.

    Args:
        image: Intensities, YX or YXC, or ZYX or ZYXC for a stack.
        label: Dense label image, integer YX or ZYX, values up to 2**31 - 1; below 0 is not labelled and stays so.
        settings: What to keep; total amounts are over this image.
        seed: Overrides the settings' seed.
        spacing: Size of a pixel along each axis of the label image, in any unit; empty if not known.

    Returns:
        The sparse label image; without any candidate it is -1 everywhere.

    Raises:
        ValueError: Image and label image do not match, or a cell's intensity is not finite.
    """
    cells = measure_cells(image, label)
    candidates = np.flatnonzero(cells.candidate)
    chosen = select(
        cells.means[candidates],
        mode=settings.mode,
        count=settings.count(candidates.size),
        seed=settings.seed if seed is None else seed,
    )
    return keep_cells(cells, candidates[chosen], settings, spacing=spacing)


def keep_cells(cells: Cells, kept: Indices, settings: Settings, *, spacing: Sequence[float] = ()) -> Sparse:
    """Draw the sparse label image of the chosen cells.

    Args:
        cells: The measured cells of one image.
        kept: Indices of the cells to keep in `cells.numbers`, ascending.
        settings: Which background; an image without a kept cell keeps none, whatever the rule.
        spacing: Size of a pixel along each axis of the label image, in any unit; empty if not known.
    """
    sparse = unlabelled(cells.label.shape)
    if kept.size:
        is_kept = np.zeros(cells.numbers.size, bool)
        is_kept[kept] = True
        runs = np.flatnonzero(is_kept[cells.run_cells])
        starts, lengths = cells.run_starts[runs], cells.run_lengths[runs]
        numbers = cells.numbers[cells.run_cells[runs]].astype(np.int32)
        sparse.reshape(-1)[run_pixels(starts, lengths)] = np.repeat(numbers, lengths)
        mark_background(
            sparse,
            cells.label,
            starts,
            lengths,
            rule=settings.background,
            distance=settings.distance,
            plane_step=spacing[0] / spacing[2] if len(spacing) == 3 else 1.0,
        )
    release(sparse)
    return Sparse(label=sparse, kept=cells.numbers[kept], candidates=int(cells.candidate.sum()))


def unlabelled(shape: tuple[int, ...]) -> Labels:
    """Return a label image of -1 everywhere, on disk if it is large."""
    label: Labels = zeros(shape, np.int32)
    for rows in in_bands(label):
        rows[...] = -1
    return label
