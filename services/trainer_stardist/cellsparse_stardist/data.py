"""Where the labelled pixels of images are, and the batches drawn around them.

The batch of a step depends on the seed and the step only.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from cellsparse_common.imaging.types import Floats, GrayImage, Labels
from cellsparse_stardist.config import Config
from cellsparse_stardist.crops import Crop, augment, cut, mark_likely_background, onto_grid, rescaled
from cellsparse_stardist.spacing import fitted
from cellsparse_stardist.targets import OUTSIDE, Stars, make_targets, middle_of
from cellsparse_trainer.data.background import LIKELY, BackgroundModel, fit_background
from cellsparse_trainer.data.outline_rim import outline_rim
from cellsparse_trainer.data.samples import Sample, threads_for
from cellsparse_trainer.data.threads import in_threads
from cellsparse_trainer.distributed.ranks import ALONE, Ranks, crop_random

PLANE_DISTANCE = 2.0
"""Assumed distance of a stack's planes in pixels when likely background is looked for: mostly it is more than 1."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Network input and targets. B crops of S x S pixels, G = S / grid, R rays; a stack's have a depth before that."""

    image: Floats
    """Shape (B, S, S, C), C image channels."""
    prob: Floats
    """Shape (B, G, G, 1): distance to the cell's edge relative to the cell's largest; 0 background, -1 not labelled."""
    dist: Floats
    """Shape (B, G, G, R): ray lengths in pixels to the cell's edge; 0 off the labelled cells."""


@dataclass(frozen=True, kw_only=True)
class SampleIndex:
    """Summary of one label image."""

    cells: npt.NDArray[np.int64]
    """Shape (cells, 1 + 2 * axes): cell number, start of its bounding box along each axis, then the ends."""
    background: npt.NDArray[np.int64]
    """Background pixels up to and including each row (each plane of a stack)."""
    background_model: BackgroundModel | None
    """Which unlabelled pixels are likely background; None where the labels do not show it."""

    @property
    def labelled(self) -> bool:
        """Whether there is a cell or a background pixel."""
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
            Its position along each axis.
        """
        if self.background[-1] > 0 and (len(self.cells) == 0 or rng.uniform() < background_share):
            row = int(np.searchsorted(self.background, rng.integers(self.background[-1]), side="right"))
            within = int(rng.choice(np.flatnonzero(label[row] == 0)))
            return row, *(int(i) for i in np.unravel_index(within, label.shape[1:]))
        position = cell if cell >= 0 else rng.integers(len(self.cells))
        start = self.starts[position]
        box = tuple(slice(a, b) for a, b in zip(start, self.stops[position], strict=True))
        pixels = np.nonzero(label[box] == self.cells[position, 0])
        pixel = rng.integers(len(pixels[0]))
        return tuple(int(a + along[pixel]) for a, along in zip(start, pixels, strict=True))

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


def _look(sample: Sample) -> tuple[SampleIndex, tuple[float, ...]]:
    return index_sample(sample.gray, sample.label), sample.spacing


def index_sample(image: GrayImage, label: Labels) -> SampleIndex:
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
    model = fit_background(image, label, PLANE_DISTANCE)
    return SampleIndex(cells=cells, background=background, background_model=model)


class Sampler:
    """Draws the batches of a training.

    Anchors (cells, or images) are visited in shuffled passes, so each is seen equally often; a crop lies around a
    labelled pixel of its anchor and therefore always holds one.

    Args:
        samples: Training items.
        config: The settings.
        ranks: Whose share of the crops batches hold.
    """

    def __init__(self, samples: Sequence[Sample], config: Config, ranks: Ranks = ALONE) -> None:
        self._samples = samples
        self._ranks = ranks
        found = list(in_threads(lambda at: _look(samples[at]), range(len(samples)), threads_for(samples)))
        self._index = [index for index, _ in found]
        spacings = [spacing for _, spacing in found]
        if config.plan.crop_depth is not None:
            extents = np.concatenate([index.stops - index.starts for index in self._index])
            config = fitted(config, extents, spacings)
        self._config = config
        self._stars = Stars.of(config)
        self._anchors: list[tuple[int, int]]
        if config.anchor_cells:
            self._anchors = [(i, c) for i, index in enumerate(self._index) for c in range(len(index.cells))]
        else:
            self._anchors = [(i, -1) for i, index in enumerate(self._index) if index.labelled]

    @property
    def config(self) -> Config:
        """The settings, fitted to the labelled cells."""
        return self._config

    @property
    def cells(self) -> int:
        """Number of labelled cells in all samples."""
        return sum(len(index.cells) for index in self._index)

    def batch(self, step: int) -> Batch:
        """Return the share of `ranks` of the batch of a step (from 0)."""
        return self.part(step, self._ranks.share(self._config.plan.crops_per_step))

    def part(self, step: int, numbers: Iterable[int]) -> Batch:
        """Return some of the crops of a step (from 0), by their numbers in its batch."""
        crops = [self._augmented(step, number) for number in numbers]
        labels = [np.where(crop.label == LIKELY, 0, crop.label) for crop in crops]
        if self._config.outline_rim >= 1:
            labels = [_with_rim(label, self._config.outline_rim) for label in labels]
        pairs = [make_targets(label, crop.margin, self._stars) for label, crop in zip(labels, crops, strict=True)]
        return Batch(
            image=np.stack([_with_channels(crop) for crop in crops]),
            prob=np.stack([prob for prob, _ in pairs])[..., np.newaxis],
            dist=np.stack([dist for _, dist in pairs]),
        )

    def _augmented(self, step: int, number: int) -> Crop:
        plan = self._config.plan
        rng = crop_random(plan.seed, step, number)
        crop = self._crop(step * plan.crops_per_step + number, rng)
        return onto_grid(augment(crop, rng, plan.colour_shift), self._stars.grid)

    def anchor(self, position: int) -> tuple[int, int]:
        """Return sample and cell of crop number `position` (from 0): positions in samples and index; -1 is any."""
        turn, rest = divmod(position, len(self._anchors))
        order = np.random.default_rng([self._config.plan.seed, turn, 1]).permutation(len(self._anchors))
        return self._anchors[int(order[rest])]

    def _crop(self, position: int, rng: np.random.Generator) -> Crop:
        item, cell = self.anchor(position)
        sample, index = self._samples[item], self._index[item]
        pixel = index.draw(sample.label, cell, self._config.background_share, rng)
        factors = (1.0,) if self._config.scale_range == 0 else (_factor(self._config.scale_range, rng), 1.0)
        for factor in factors:
            crop = self._window(sample, index, pixel, factor, rng)
            if (crop.label[middle_of(crop.label.shape, crop.margin)] >= 0).any():
                break  # a single pixel can vanish where cells shrink
        return crop

    def _window(
        self, sample: Sample, index: SampleIndex, pixel: Sequence[int], factor: float, rng: np.random.Generator
    ) -> Crop:
        """Cut the window around a pixel that, scaled by a factor along Y and X, has the size of a crop."""
        size, shape = self._config.crop, sample.label.shape
        if factor != 1:
            size = (*size[:-2], *(math.ceil(pixels / factor) for pixels in size[-2:]))
        corner = [_corner(*each, self._config.jitter, rng) for each in zip(pixel, size, shape, strict=True)]
        margin = index.overhang(corner, size, self._config.grids)
        crop = cut(sample.image, sample.label, corner, size, margin)
        crop = mark_likely_background(crop, index.background_model, self._config.likely_background, rng)
        return crop if factor == 1 else rescaled(crop, factor, self._config.crop, self._config.grids)


def _with_channels(crop: Crop) -> Floats:
    """Return a crop's image with an axis for channels, the last one, also where there is one channel."""
    return crop.image[..., np.newaxis] if crop.image.ndim == crop.label.ndim else crop.image


def _with_rim(label: Labels, width: float) -> Labels:
    """Return labels whose unlabelled pixels just outside labelled cells are background.

    That holds inside a neighbour that touches, too: so near to its edge, its probability is small.
    """
    return np.where(outline_rim(label, width, PLANE_DISTANCE).pixels & (label != OUTSIDE), np.int32(0), label)


def _factor(scale: float, rng: np.random.Generator) -> float:
    """Draw a factor from 1 / (1 + scale) to 1 + scale, each way as likely."""
    limit = math.log(1 + scale)
    return math.exp(rng.uniform(-limit, limit))


def _corner(pixel: int, size: int, length: int, jitter: float, rng: np.random.Generator) -> int:
    """Return the first row (column, plane) of a window around a pixel, inside the image where it fits."""
    if size >= length:
        return -((size - length) // 2)
    reach = jitter * (size - 1) / 2
    corner = round(pixel - (size - 1) / 2 + rng.uniform(-reach, reach))
    return int(np.clip(np.clip(corner, pixel - size + 1, pixel), 0, length - size))
