"""Copies of labelled cells pasted beside labelled cells (copy-paste augmentation, Ghiasi 2021, arXiv:2012.07177).

Of a few labelled cells hardly any two touch. So nothing in the labels shows a network where one of two touching cells
ends and the other begins, and it merges them. Of a labelled cell, however, all pixels are known. A copy of it, turned
and put right beside a labelled cell, makes a pair whose border is known as well.

Near its outline a copy's brightness is added to that of its new surroundings, as the brightness of two cells adds up
where they touch. Inside, the copy replaces what was there. Cells keep their numbers and copies get new ones.

All functions are pure. Axes are YX, or YXC with several channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.types import Floats, Labels, Mask
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.data.lru_cache import SizedLruCache
from cellsparse_trainer.data.samples import CACHE_BYTES, CachedSamples, Sample, threads_for

MOST_CELLS = 32
"""Most labelled cells of an image that get copies beside them."""
TRIES = 4
"""How often a place is looked for before a copy is left out."""
GAPS = (0, 0, 1)
"""Pixels between a copy and its neighbour, each as often."""
HALO = 4
"""Pixels around a cell in which it makes its surroundings brighter (or darker)."""
LEAST_SEEN = 0.9
"""Share of a copy that has to lie inside the image."""
SOFT = 2.0
"""Pixels from its outline at which a copy hides what was there."""


@dataclass(frozen=True, kw_only=True)
class _Copy:
    """A cell cut out with its halo; the arrays have one height and width."""

    cell: Mask
    contrast: Floats
    """Brightness less that of the surroundings, 0 beyond the halo; with several channels one more axis."""
    surroundings: Floats
    """Brightness of the surroundings, of each channel."""

    @property
    def middle(self) -> npt.NDArray[np.float64]:
        return np.asarray(np.argwhere(self.cell).mean(axis=0))


class PastedSamples(CachedSamples):
    """Samples, and after them the same ones again with copies of their labelled cells.

    Args:
        samples: 2D samples.
        copies: Copies beside each labelled cell, from 1.
        seed: Seed of their choice and places; each sample is the same whenever it is made.
        cache_bytes: Bound on the memory of the samples with copies.
    """

    def __init__(self, samples: Sequence[Sample], copies: int, seed: int, *, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__(cache_bytes)
        self._samples = samples
        self._copies = copies
        self._seed = seed

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; it fills its own cache."""
        return {**self.__dict__, "_cache": SizedLruCache(self._make, self._cache_bytes)}

    def __len__(self) -> int:
        return 2 * len(self._samples)

    @property
    def threads(self) -> int | None:
        """As many threads may work on different samples as may read those without copies."""
        return threads_for(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, int) and 0 <= index < len(self._samples):
            return self._samples[index]  # not kept twice
        return super().__getitem__(index)

    def _make(self, index: int) -> Sample:
        count = len(self._samples)
        if index < count:
            return self._samples[index]
        sample = self._samples[index - count]
        return with_copies(sample, self._copies, np.random.default_rng([self._seed, index - count, 3]))


def augmented(samples: Sequence[Sample], plan: Plan, cache_bytes: int = CACHE_BYTES) -> Sequence[Sample]:
    """Return what a plan trains on: the samples, with `copy_paste` followed by the same ones with copies."""
    if not plan.copy_paste:
        return samples
    return PastedSamples(samples, plan.copy_paste, plan.seed, cache_bytes=cache_bytes)


def with_copies(sample: Sample, copies: int, rng: np.random.Generator) -> Sample:
    """Return a sample with copies of its labelled cells beside its labelled cells.

    Cells at the image's edge are not copied, since they are not whole. A copy covers no labelled cell. It is left out
    where no place was found.

    Args:
        sample: 2D; not changed.
        copies: Copies beside each labelled cell, of `MOST_CELLS` at most.
        rng: Random numbers.
    """
    numbers = np.unique(sample.label[sample.label > 0])
    at_edge = np.unique(np.concatenate([sample.label[[0, -1]].ravel(), sample.label[:, [0, -1]].ravel()]))
    whole = np.setdiff1d(numbers, at_edge)
    if not len(whole):
        return sample
    image, label = np.array(sample.image, np.float32), np.array(sample.label)
    boxes = _boxes(sample.label, numbers)
    beside = numbers if len(numbers) <= MOST_CELLS else rng.choice(numbers, MOST_CELLS, replace=False)
    neighbours = np.repeat(beside, copies)
    for number, new in zip(neighbours, _unused_numbers(numbers, len(neighbours)), strict=True):
        for _ in range(TRIES):
            chosen = int(rng.choice(whole))
            copy = _turned(_cut_out(sample, chosen, boxes[chosen]), int(rng.integers(4)), bool(rng.integers(2)))
            if _paste(image, label, int(number), copy, new, rng):
                break
    for array in (image, label):
        array.setflags(write=False)
    return replace(sample, name=f"{sample.name} with copies", image=image, label=label)


def _unused_numbers(numbers: npt.NDArray[np.integer[Any]], count: int) -> Sequence[int]:
    """Return numbers that no cell has: those after the largest one, or the smallest ones where int32 has no room."""
    after = int(numbers[-1]) + 1
    if after + count - 1 <= np.iinfo(np.int32).max:
        return range(after, after + count)
    return [int(n) for n in np.setdiff1d(np.arange(1, len(numbers) + count + 1), numbers)[:count]]


def _boxes(label: Labels, numbers: npt.NDArray[np.integer[Any]]) -> dict[int, tuple[slice, ...]]:
    """Return the bounding box of each labelled cell."""
    dense = np.where(label > 0, np.searchsorted(numbers, label) + 1, 0)
    return {int(n): box for n, box in zip(numbers, ndimage.find_objects(dense), strict=True)}


def _cut_out(sample: Sample, number: int, box: tuple[slice, ...]) -> _Copy:
    """Cut a cell out with its halo.

    The brightness of its surroundings is the lower quartile of the pixels around it that are in no labelled cell, since
    brighter ones may be neighbours; around a dark cell it is the upper quartile.
    """
    wide = tuple(
        slice(max(0, side.start - HALO), min(length, side.stop + HALO))
        for side, length in zip(box, sample.label.shape, strict=True)
    )
    pixels, cell = np.asarray(sample.image[wide], np.float32), sample.label[wide] == number
    away = ndimage.distance_transform_edt(~cell)
    around = (away > HALO / 2) & (away <= HALO) & (sample.label[wide] <= 0)
    if not around.any():
        around = ~cell
    inside = np.median(pixels[cell], axis=0)
    dark = np.quantile(pixels[around], 0.25, axis=0)
    bright = np.quantile(pixels[around], 0.75, axis=0)
    surroundings = np.where(np.mean(inside) >= np.mean(dark), dark, bright).astype(np.float32)
    contrast = pixels - surroundings
    like_cell = contrast if np.mean(inside - surroundings) >= 0 else -contrast
    fading = np.clip((HALO - away) / (HALO - 1), 0, 1).astype(np.float32)
    if pixels.ndim > cell.ndim:
        fading, cell_pixels = fading[..., np.newaxis], cell[..., np.newaxis]
    else:
        cell_pixels = cell
    contrast = np.where(cell_pixels | (like_cell > 0), contrast, 0) * fading
    return _Copy(cell=cell, contrast=contrast, surroundings=surroundings)


def _turned(copy: _Copy, quarters: int, flip: bool) -> _Copy:
    """Turn a copy by quarters, after mirroring it."""

    def turn(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.rot90(array[::-1] if flip else array, quarters, axes=(0, 1))

    return replace(copy, cell=turn(copy.cell), contrast=turn(copy.contrast))


def _paste(image: Floats, label: Labels, number: int, copy: _Copy, new: int, rng: np.random.Generator) -> bool:
    """Put a copy beside a cell, in a random direction, in place; return whether there is room for it."""
    angle, gap = rng.uniform(0, 2 * np.pi), int(rng.choice(GAPS))
    neighbour = label == number
    towards = np.array([np.sin(angle), np.cos(angle)])
    start = np.argwhere(neighbour).mean(axis=0) - copy.middle
    reach = ndimage.binary_dilation(copy.cell, iterations=gap) if gap else copy.cell
    for distance in range(1, sum(label.shape)):
        corner = np.rint(start + distance * towards).astype(int)
        there, here = _meeting(corner, copy.cell.shape, label.shape)
        if copy.cell[here].sum() < LEAST_SEEN * copy.cell.sum():
            return False
        if not (neighbour[there] & reach[here]).any():
            break
    cell = copy.cell[here]
    if (label[there][cell] > 0).any():
        return False
    depth = ndimage.distance_transform_edt(copy.cell)[here]
    hidden = np.clip((depth - 0.5) / SOFT, 0, 1).astype(np.float32)
    if image.ndim > label.ndim:
        hidden = hidden[..., np.newaxis]
    image[there] = image[there] * (1 - hidden) + copy.surroundings * hidden + copy.contrast[here]
    label[there][cell] = new
    return True


def _meeting(
    corner: npt.NDArray[Any], size: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where a window lies in an image, and which part of the window that is; both may be empty."""
    first = [min(max(0, int(c)), length) for c, length in zip(corner, shape, strict=True)]
    last = [max(f, min(length, int(c) + s)) for f, c, s, length in zip(first, corner, size, shape, strict=True)]
    there = tuple(slice(f, e) for f, e in zip(first, last, strict=True))
    return there, tuple(slice(f - int(c), e - int(c)) for f, e, c in zip(first, last, corner, strict=True))
