"""Batches: crops around labelled pixels, augmented, with StarDist's own targets.

Every function here is a pure function of its arguments; the batch of a step depends on the seed and the step only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellsparse_stardist.config import Config
from cellsparse_stardist.framework import edt_prob, star_dist
from cellsparse_stardist.index import SampleIndex, blur, index_sample
from cellsparse_trainer.samples import Sample

OUTSIDE = -2
"""Marks pixels outside the image while a crop is cut; they become -1, not labelled."""

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Network input and targets. B crops of S x S pixels, G = S / grid, R rays."""

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
    """Axes YX, size S x S; reflected where the window leaves the image."""
    label: Labels
    """Axes YX, size S + 2 * margin, the window in the middle; `OUTSIDE` where it leaves the image."""
    margin: int
    """Pixels of context on each side, a multiple of the grid."""


class Sampler:
    """Draws the batches of a training.

    Anchors (cells, or images) are visited in shuffled passes, so each is seen equally often; a crop lies around a
    labelled pixel of its anchor and therefore always holds one.
    """

    def __init__(self, samples: Sequence[Sample], config: Config) -> None:
        self._samples = samples
        self._config = config
        self._index: list[SampleIndex] = [index_sample(sample.image, sample.label) for sample in samples]
        self._anchors: list[tuple[int, int]]
        if config.anchor_cells:
            self._anchors = [(i, c) for i, index in enumerate(self._index) for c in range(len(index.cells))]
        else:
            self._anchors = [(i, -1) for i, index in enumerate(self._index) if index.labelled]

    @property
    def cells(self) -> int:
        """Number of labelled cells in all samples."""
        return sum(len(index.cells) for index in self._index)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step (from 0)."""
        plan, grid = self._config.plan, self._config.grid
        rng = np.random.default_rng([plan.seed, step])
        crops = [self._crop(step * plan.batch_size + i, rng) for i in range(plan.batch_size)]
        crops = [augment(crop, rng) for crop in crops]
        pairs = [targets(crop.label, crop.margin, grid, self._config.n_rays) for crop in crops]
        return Batch(
            image=np.stack([crop.image for crop in crops])[..., np.newaxis],
            prob=np.stack([prob for prob, _ in pairs])[..., np.newaxis],
            dist=np.stack([dist for _, dist in pairs]),
        )

    def anchor(self, position: int) -> tuple[int, int]:
        """Return sample and cell of crop number `position` (from 0): positions in samples and index; -1 is any."""
        turn, place = divmod(position, len(self._anchors))
        order = np.random.default_rng([self._config.plan.seed, turn, 1]).permutation(len(self._anchors))
        return self._anchors[int(order[place])]

    def _crop(self, position: int, rng: np.random.Generator) -> Crop:
        item, cell = self.anchor(position)
        sample, index = self._samples[item], self._index[item]
        pixel = index.draw(sample.label, cell, self._config.background_share, rng)
        size, shape = self._config.plan.crop_size, sample.label.shape
        corner = [_corner(pixel[axis], size, shape[axis], self._config.jitter, rng) for axis in range(2)]
        margin = index.overhang(corner, size, self._config.grid)
        crop = cut(sample.image, sample.label, (corner[0], corner[1]), size, margin)
        return assume_dark(crop, index.dark, self._config.dark_share, rng)


def cut(image: Floats, label: Labels, corner: tuple[int, int], size: int, margin: int) -> Crop:
    """Copy a window; what lies outside the image is reflected image and `OUTSIDE` label.

    Args:
        image: Axes YX.
        label: Axes YX, the image's size; not changed.
        corner: First row and column of the window; may be negative where the image is smaller than the window.
        size: Height and width of the window, pixels.
        margin: Label context on each side, pixels.
    """
    window = _window(corner, size, label.shape)
    pixels = np.pad(image[window.inside].astype(np.float32), window.padding, mode="reflect")
    wide = _window((corner[0] - margin, corner[1] - margin), size + 2 * margin, label.shape)
    context = np.pad(label[wide.inside].astype(np.int32), wide.padding, constant_values=OUTSIDE)
    return Crop(image=pixels, label=context, margin=margin)


def assume_dark(crop: Crop, dark: float, share: float, rng: np.random.Generator) -> Crop:
    """Label a random share of the dark unlabelled pixels of a window as background.

    A person labels background next to cells at most; without this the network invents cells where it was never told.
    A share instead of all, so that assumed background does not outnumber what was labelled.

    Args:
        crop: Before augmentation.
        dark: `SampleIndex.dark`.
        share: Share of the dark pixels, 0 to 1.
        rng: Random numbers.
    """
    if share == 0 or dark == -np.inf:
        return crop
    label = crop.label.copy()
    middle = label[crop.margin : label.shape[0] - crop.margin, crop.margin : label.shape[1] - crop.margin]
    middle[(middle == -1) & (blur(crop.image) < dark) & (rng.random(middle.shape) < share)] = 0
    return Crop(image=crop.image, label=label, margin=crop.margin)


def augment(crop: Crop, rng: np.random.Generator) -> Crop:
    """Turn by a multiple of 90 degrees, flip, scale and shift the intensity, add noise, as StarDist's examples do."""
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, label = np.rot90(crop.image, turns), np.rot90(crop.label, turns)
    if flip:
        image, label = image[:, ::-1], label[:, ::-1]
    image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
    image = image + 0.02 * rng.uniform() * rng.standard_normal(image.shape)
    return Crop(image=image.astype(np.float32), label=np.ascontiguousarray(label), margin=crop.margin)


def targets(label: Labels, margin: int, grid: int, n_rays: int) -> tuple[Floats, Floats]:
    """Compute StarDist's targets for the middle of a label image, as if for the whole image.

    The same numbers as `stardist.models.StarDistData2D` gives for an image, except that a cell cut by the crop keeps
    the distances to its real edge. `OUTSIDE` is the image border: rays end there and probability does not fall.

    Args:
        label: Axes YX, size S + 2 * margin; `OUTSIDE`, -1 not labelled, 0 background, n > 0 cell n.
        margin: Context on each side, pixels, a multiple of grid.
        grid: Pixels per grid point and axis.
        n_rays: Number of rays.

    Returns:
        prob of shape (S / grid, S / grid), -1 where there is no supervision, and dist of shape (S / grid, S / grid, R).
    """
    cells = _renumber(label)
    coarse, known = cells[::grid, ::grid], label[::grid, ::grid]
    prob = np.full(coarse.shape, -1, np.float32)
    inside = np.ix_((known != OUTSIDE).any(axis=1), (known != OUTSIDE).any(axis=0))
    prob[inside] = edt_prob(coarse[inside]) if coarse.any() else 0
    prob[known < 0] = -1
    middle = slice(margin // grid, coarse.shape[0] - margin // grid)
    if not coarse.any():
        return prob[middle, middle], np.zeros((*prob[middle, middle].shape, n_rays), np.float32)
    dist = star_dist(cells, n_rays, grid=(grid, grid))
    return prob[middle, middle], dist[middle, middle].astype(np.float32, copy=False)


def _renumber(label: Labels) -> npt.NDArray[np.int32]:
    """Number the cells 1 to n (StarDist's code takes 16 bits) and set all else to 0."""
    cells = np.zeros(label.shape, np.int32)
    positive = label > 0
    cells[positive] = np.unique(label[positive], return_inverse=True)[1] + 1
    return cells


@dataclass(frozen=True)
class _Window:
    inside: tuple[slice, slice]
    padding: list[tuple[int, int]]


def _window(corner: Sequence[int], size: int, shape: Sequence[int]) -> _Window:
    starts = [max(c, 0) for c in corner]
    stops = [min(c + size, n) for c, n in zip(corner, shape, strict=True)]
    padding = [(b - c, c + size - e) for c, b, e in zip(corner, starts, stops, strict=True)]
    return _Window((slice(starts[0], stops[0]), slice(starts[1], stops[1])), padding)


def _corner(pixel: int, size: int, length: int, jitter: float, rng: np.random.Generator) -> int:
    """First row (or column) of a window that holds a pixel: near its middle, inside the image where it fits."""
    if size >= length:
        return -((size - length) // 2)
    reach = jitter * (size - 1) / 2
    corner = round(pixel - (size - 1) / 2 + rng.uniform(-reach, reach))
    return int(np.clip(np.clip(corner, pixel - size + 1, pixel), 0, length - size))
