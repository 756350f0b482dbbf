"""Batches: crops around labelled pixels, augmented, with StarDist's own targets.

Every function here is a pure function of its arguments; the batch of a step depends on the seed and the step only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellsparse_stardist.config import Config
from cellsparse_stardist.index import SampleIndex, index_sample
from cellsparse_stardist.spacing import fitted
from cellsparse_stardist.targets import Stars
from cellsparse_trainer.data.background import BackgroundModel
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import ALONE, Ranks, crop_random

OUTSIDE = -2
"""Marks pixels outside the image while a crop is cut; they become -1, not labelled."""
LIKELY = -3
"""Marks unlabelled pixels that count as background until a crop's labels lie on the grid; they become 0."""

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Network input and targets. B crops of S x S pixels, G = S / grid, R rays; a stack's have a depth before that."""

    image: Floats
    """Shape (B, S, S, 1)."""
    prob: Floats
    """Shape (B, G, G, 1): distance to the cell's edge relative to the cell's largest; 0 background, -1 not labelled."""
    dist: Floats
    """Shape (B, G, G, R): ray lengths in pixels to the cell's edge; 0 off the labelled cells."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A window of an image and as much more of its label image as the targets need."""

    image: Floats
    """Axes YX or ZYX, the crop's size; reflected where the window leaves the image."""
    label: Labels
    """Axes as the image's, larger by 2 * margin, the window in the middle; `OUTSIDE` where it leaves the image."""
    margin: tuple[int, ...]
    """Pixels of context on each side along each axis, multiples of the grid."""


class Sampler:
    """Draws the batches of a training.

    Anchors (cells, or images) are visited in shuffled passes, so each is seen equally often; a crop lies around a
    labelled pixel of its anchor and therefore always holds one.
    """

    def __init__(self, samples: Sequence[Sample], config: Config, ranks: Ranks = ALONE) -> None:
        self._samples = samples
        self._ranks = ranks
        self._index: list[SampleIndex] = []
        spacings = []
        for sample in samples:
            self._index.append(index_sample(sample.image, sample.label))
            spacings.append(sample.spacing)
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

    def part(self, step: int, places: Iterable[int]) -> Batch:
        """Return some of the crops of a step (from 0), by their places in its batch."""
        crops = [self._augmented(step, place) for place in places]
        labels = [np.where(crop.label == LIKELY, 0, crop.label) for crop in crops]
        pairs = [targets(label, crop.margin, self._stars) for label, crop in zip(labels, crops, strict=True)]
        return Batch(
            image=np.stack([crop.image for crop in crops])[..., np.newaxis],
            prob=np.stack([prob for prob, _ in pairs])[..., np.newaxis],
            dist=np.stack([dist for _, dist in pairs]),
        )

    def _augmented(self, step: int, place: int) -> Crop:
        plan = self._config.plan
        rng = crop_random(plan.seed, step, place)
        return onto_grid(augment(self._crop(step * plan.crops_per_step + place, rng), rng), self._stars.grid)

    def anchor(self, position: int) -> tuple[int, int]:
        """Return sample and cell of crop number `position` (from 0): positions in samples and index; -1 is any."""
        turn, place = divmod(position, len(self._anchors))
        order = np.random.default_rng([self._config.plan.seed, turn, 1]).permutation(len(self._anchors))
        return self._anchors[int(order[place])]

    def _crop(self, position: int, rng: np.random.Generator) -> Crop:
        item, cell = self.anchor(position)
        sample, index = self._samples[item], self._index[item]
        pixel = index.draw(sample.label, cell, self._config.background_share, rng)
        size, shape = self._config.crop, sample.label.shape
        corner = [_corner(*place, self._config.jitter, rng) for place in zip(pixel, size, shape, strict=True)]
        margin = index.overhang(corner, size, self._config.grids)
        crop = cut(sample.image, sample.label, corner, size, margin)
        return mark_likely_background(crop, index.ground, self._config.likely_background, rng)


def cut(image: Floats, label: Labels, corner: Sequence[int], size: tuple[int, ...], margin: tuple[int, ...]) -> Crop:
    """Copy a window; what lies outside the image is reflected image and `OUTSIDE` label.

    Args:
        image: Axes YX or ZYX.
        label: The image's axes and size; not changed.
        corner: Where the window starts along each axis; may be negative where the image is smaller than the window.
        size: Pixels of the window along each axis.
        margin: Label context on each side along each axis, pixels.
    """
    window = _window(corner, size, label.shape)
    pixels = np.pad(image[window.inside].astype(np.float32), window.padding, mode="reflect")
    wide_corner = [c - m for c, m in zip(corner, margin, strict=True)]
    wide = _window(wide_corner, [s + 2 * m for s, m in zip(size, margin, strict=True)], label.shape)
    context = np.pad(label[wide.inside].astype(np.int32), wide.padding, constant_values=OUTSIDE)
    return Crop(image=pixels, label=context, margin=margin)


def mark_likely_background(crop: Crop, ground: BackgroundModel | None, share: float, rng: np.random.Generator) -> Crop:
    """Mark a random share of the unlabelled pixels of a window that are likely background as `LIKELY`.

    A person labels background next to cells at most; without this the network invents cells where it was never told.
    A share instead of all, so that assumed background does not outnumber what was labelled.

    Args:
        crop: Before augmentation.
        ground: `SampleIndex.ground`.
        share: Share of those pixels, 0 to 1.
        rng: Random numbers.
    """
    if share == 0 or ground is None:
        return crop
    label = crop.label.copy()
    middle = label[_middle(label.shape, crop.margin)]
    middle[(middle == -1) & ground.covers(crop.image) & (rng.random(middle.shape) < share)] = LIKELY
    return Crop(image=crop.image, label=label, margin=crop.margin)


def augment(crop: Crop, rng: np.random.Generator) -> Crop:
    """Turn by a multiple of 90 degrees, flip, scale and shift the intensity, add noise, as StarDist's examples do.

    Stacks are turned in their planes only, for z is another axis than the others, and flipped along it, too.
    """
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, label = np.rot90(crop.image, turns, axes=(-2, -1)), np.rot90(crop.label, turns, axes=(-2, -1))
    if flip:
        image, label = image[..., ::-1], label[..., ::-1]
    if image.ndim == 3 and rng.integers(2):
        image, label = image[::-1], label[::-1]
    image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
    image = image + 0.02 * rng.uniform() * rng.standard_normal(image.shape)
    return Crop(image=image.astype(np.float32), label=np.ascontiguousarray(label), margin=crop.margin)


def onto_grid(crop: Crop, grid: Sequence[int]) -> Crop:
    """Move a crop's content by less than a grid step if none of its labelled pixels lies on a grid point.

    The network answers at grid points only, so the few labelled pixels of a thin or tiny cell can all lie between them:
    the crop would then teach nothing.

    Args:
        crop: After augmentation, with a labelled pixel.
        grid: Pixels per grid point along each axis.

    Returns:
        A crop with a labelled pixel on a grid point; the same one if it has one already.
    """
    window = crop.label[_middle(crop.label.shape, crop.margin)]
    if (window[tuple(slice(None, None, step) for step in grid)] >= 0).any():
        return crop
    away = [int(n) % step for n, step in zip(np.argwhere(window >= 0)[0], grid, strict=True)]
    rest, padding = tuple(slice(n, None) for n in away), [(0, n) for n in away]
    return Crop(
        image=np.pad(crop.image[rest], padding, mode="reflect"),
        label=np.pad(crop.label[rest], padding, constant_values=OUTSIDE),
        margin=crop.margin,
    )


def targets(label: Labels, margin: tuple[int, ...], stars: Stars) -> tuple[Floats, Floats]:
    """Compute StarDist's targets for the middle of a label image, as if for the whole image.

    The same numbers as `StarDistData2D` and `StarDistData3D` of `stardist.models` give for an image, except that a cell
    cut by the crop keeps the distances to its real edge. `OUTSIDE` is the image border: rays end there and probability
    does not fall.

    Args:
        label: Axes YX or ZYX, the crop's size + 2 * margin; `OUTSIDE`, -1 not labelled, 0 background, n > 0 cell n.
        margin: Context on each side along each axis, pixels, multiples of the grid.
        stars: Grid and rays.

    Returns:
        prob with one value per grid point of the crop, -1 where there is no supervision, and dist with one more axis:
        the rays.
    """
    cells = _renumber(label)
    known = label[tuple(slice(None, None, step) for step in stars.grid)]
    prob = stars.probabilities(cells, label != OUTSIDE)
    prob[known < 0] = -1
    middle = _middle(known.shape, tuple(m // step for m, step in zip(margin, stars.grid, strict=True)))
    if not (known > 0).any():
        return prob[middle], np.zeros((*prob[middle].shape, stars.n_rays), np.float32)
    return prob[middle], stars.distances(cells)[middle]


def _renumber(label: Labels) -> npt.NDArray[np.int32]:
    """Number the cells 1 to n (StarDist's code takes 16 bits) and set all else to 0."""
    cells = np.zeros(label.shape, np.int32)
    positive = label > 0
    cells[positive] = np.unique(label[positive], return_inverse=True)[1] + 1
    return cells


def _middle(shape: Sequence[int], margin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(m, n - m) for n, m in zip(shape, margin, strict=True))


@dataclass(frozen=True)
class _Window:
    inside: tuple[slice, ...]
    padding: list[tuple[int, int]]


def _window(corner: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> _Window:
    starts = [max(c, 0) for c in corner]
    stops = [min(c + s, n) for c, s, n in zip(corner, size, shape, strict=True)]
    padding = [(b - c, c + s - e) for c, s, b, e in zip(corner, size, starts, stops, strict=True)]
    return _Window(tuple(slice(b, e) for b, e in zip(starts, stops, strict=True)), padding)


def _corner(pixel: int, size: int, length: int, jitter: float, rng: np.random.Generator) -> int:
    """First row (column, plane) of a window that holds a pixel: near its middle, inside the image where it fits."""
    if size >= length:
        return -((size - length) // 2)
    reach = jitter * (size - 1) / 2
    corner = round(pixel - (size - 1) / 2 + rng.uniform(-reach, reach))
    return int(np.clip(np.clip(corner, pixel - size + 1, pixel), 0, length - size))
