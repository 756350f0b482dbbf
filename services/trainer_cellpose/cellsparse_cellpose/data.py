"""Which crops a step trains on: a pure function of the seed and the step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from cellsparse_cellpose.config import Config
from cellsparse_cellpose.targets import make_targets
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.types import Mask
from cellsparse_torch.flows.balance import background_weight
from cellsparse_torch.flows.crops import Crop, UncutCrop, affine_map, cut, cut_window
from cellsparse_torch.flows.targets import Targets
from cellsparse_torch.windows import packed
from cellsparse_trainer.data.background import Surroundings, likely_background
from cellsparse_trainer.data.colours import draw_colours, shift_colours
from cellsparse_trainer.data.lru_cache import SizedLruCache
from cellsparse_trainer.data.outline_rim import as_bright_as_cell, outline_rim
from cellsparse_trainer.data.samples import Sample, threads_for
from cellsparse_trainer.data.target_cache import DiskCache
from cellsparse_trainer.distributed.ranks import ALONE, Ranks, crop_random

UNIFORM_TRIES = 50
"""Crops placed anywhere in an image before one is placed on a labelled pixel instead."""

BACKGROUND_CROPS = 0.25
"""Share of the crops placed around a background pixel instead of a cell, where some background is labelled."""

TARGET_BYTES = 2**28
"""Memory for the targets of images that were used last."""

MARGIN = 0.15
"""Smallest distance of the pixel a crop is placed around from the crop's border, relative to its side."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops of side S for one step."""

    image: npt.NDArray[np.float32]
    """Shape (B, 2, S, S); cytoplasm and nucleus; the second channel is zero where there is one."""
    label: npt.NDArray[np.int16]
    """Shape (B, S, S): -1 not labelled, 0 background, 1 cell, `LIKELY` (-2) likely background."""
    flow: npt.NDArray[np.float32]
    """Flows (y, x), zero outside labelled cells, shape (B, 2, S, S)."""


@dataclass(frozen=True, kw_only=True)
class UncutBatch:
    """Crops of side S for one step, whose brightness and flows the device takes."""

    label: npt.NDArray[np.int16]
    """As in `Batch`."""
    turn: npt.NDArray[np.float32]
    """What flows (y, x) are multiplied with, shape (B, 2, 2)."""
    windows: dict[str, npt.NDArray[Any]]
    """Image channels and flows, see `windows.packed`."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What stays in memory of the targets of every image: fields as in `Targets`."""

    cell_pixels: int
    """Number of pixels of labelled cells."""
    centers: npt.NDArray[np.int64]
    diameter: float
    background: int
    likely_pixels: int
    """Number of pixels of likely background."""


class Sampler:
    """Draws batches. Images without a labelled pixel are left out.

    The targets of all images are made once; those used last, and a summary of each, stay in memory.

    Args:
        samples: Training images.
        config: The settings.
        ranks: Whose share of the crops batches hold.
        disk_cache: Where targets may be kept on disk.

    Attributes:
        diameter: Mean over the images of the median diameter of their labelled cells, in pixels.
        background_weight: Weight of a background pixel relative to a cell's that gives the background its share.
        steps_per_epoch: Batches that show every image once.

    Raises:
        InvalidArgument: No image has a labelled cell.
    """

    def __init__(
        self, samples: Sequence[Sample], config: Config, ranks: Ranks = ALONE, disk_cache: DiskCache | None = None
    ) -> None:
        self._config = config
        self._ranks = ranks
        self._samples = samples
        self._disk_cache = disk_cache
        self._targets = SizedLruCache(self._make, TARGET_BYTES)
        self._about = [_summary(targets) for targets in self._targets.each(range(len(samples)), threads_for(samples))]
        found = list(enumerate(self._about))
        self._cells = [(index, cell) for index, one in found for cell in range(len(one.centers))]
        self._background = [index for index, one in found if one.background]
        self._usable = [index for index, one in found if one.background or len(one.centers)]
        if not self._cells:
            raise InvalidArgument(f"None of the {len(samples)} training images has a labelled cell.")
        self.diameter = float(np.mean([one.diameter for one in self._about if len(one.centers)]))
        self.background_weight = _background_weight(self._about, config)
        self.steps_per_epoch = -(-len(self._usable) // config.plan.crops_per_step)

    def _make(self, index: int) -> Targets:
        sample = self._samples[index]
        likely = _likely(sample, self._config.rim_width) if self._config.likely_background else None
        return make_targets(sample.label, likely, self._disk_cache)

    def batch(self, step: int) -> Batch | UncutBatch:
        """Draw the batch of a step (from 0); with `Plan.device_augmentation` its crops are not cut."""
        plan = self._config.plan
        if self._config.sampling == "cell":
            share = self._ranks.share(plan.crops_per_step)
            crops = [self._around_label(crop_random(plan.seed, step, number)) for number in share]
        else:
            indices = self._turn(step)
            share = self._ranks.share(len(indices))
            crops = [self._anywhere(crop_random(plan.seed, step, number), indices[number]) for number in share]
            if not crops:  # an epoch's last batch may have fewer crops than there are processes
                crops = [_silenced(self._anywhere(crop_random(plan.seed, step, 0), indices[0]))]
        if plan.device_augmentation:
            return _uncut(cast("list[UncutCrop]", crops))
        return self._cut(cast("list[Crop]", crops))

    def _cut(self, crops: Sequence[Crop]) -> Batch:
        plan = self._config.plan
        image = np.zeros((len(crops), 2, plan.crop_size, plan.crop_size), np.float32)
        if self._config.plan.channels:
            image[:] = [np.moveaxis(crop.image, -1, 0) for crop in crops]
        else:
            image[:, 0] = [crop.image for crop in crops]
        return Batch(
            image=image,
            label=np.stack([crop.label for crop in crops]),
            flow=np.stack([crop.flow for crop in crops]),
        )

    def _turn(self, step: int) -> list[int]:
        """Return the images of a step: every epoch shows each image once, the last batch may be smaller."""
        epoch, part = divmod(step, self.steps_per_epoch)
        # A third number that is not 0 keeps this stream apart from those of the crops.
        order = np.random.default_rng([self._config.plan.seed, epoch, 1]).permutation(self._usable)
        size = self._config.plan.crops_per_step
        return [int(index) for index in order[part * size : (part + 1) * size]]

    def _anywhere(self, rng: np.random.Generator, index: int) -> Crop | UncutCrop:
        """Place a crop as Cellpose does, again and again until it shows a labelled pixel."""
        size = self._config.plan.crop_size
        sides = np.array(self._samples[index].label.shape)
        for _ in range(UNIFORM_TRIES):
            scale = self._scale(rng, index)
            target = size / 2 + (rng.random(2) - 0.5) * np.maximum(0, sides * scale - size)
            crop = self._crop(rng, index, sides / 2, target, scale)
            if (crop.label >= 0).any():
                return crop
        return self._at(rng, index, self._pixel(rng, index, background=not len(self._about[index].centers)))

    def _around_label(self, rng: np.random.Generator) -> Crop | UncutCrop:
        """Place a crop so that it shows a labelled cell, each with the same chance, or labelled background."""
        if self._background and rng.random() < BACKGROUND_CROPS:
            index = self._background[rng.integers(len(self._background))]
            return self._at(rng, index, self._pixel(rng, index, background=True))
        index, cell = self._cells[rng.integers(len(self._cells))]
        return self._at(rng, index, self._about[index].centers[cell])

    def _at(self, rng: np.random.Generator, index: int, pixel: npt.NDArray[np.int64]) -> Crop | UncutCrop:
        """Cut a crop that shows a given pixel. The pixel falls on a whole crop pixel, so rounding cannot lose it."""
        size = self._config.plan.crop_size
        margin = int(MARGIN * size)
        target = rng.integers(margin, size - margin, 2)
        return self._crop(rng, index, pixel, target, self._scale(rng, index))

    def _pixel(self, rng: np.random.Generator, index: int, *, background: bool) -> npt.NDArray[np.int64]:
        """Return a labelled pixel (y, x) of an image, of its background or of a cell."""
        label = self._samples[index].label
        pixels = np.flatnonzero(label == 0) if background else self._targets[index].inside
        return np.array(divmod(int(pixels[rng.integers(pixels.size)]), label.shape[1]))

    def _scale(self, rng: np.random.Generator, index: int) -> float:
        """Return crop pixels per image pixel: cells come to the mean diameter, give or take the scale range."""
        spread = 1 + self._config.scale_range * (rng.random() - 0.5)
        own = self._about[index].diameter if self._config.rescale == "image" else 0.0
        return self._config.mean_diameter / (own or self.diameter) * spread

    def _crop(
        self, rng: np.random.Generator, index: int, anchor: npt.NDArray[Any], target: npt.NDArray[Any], scale: float
    ) -> Crop | UncutCrop:
        matrix = affine_map(anchor, target, scale=scale, angle=rng.random() * 2 * np.pi, mirrored=rng.random() < 0.5)
        sample, targets, size = self._samples[index], self._targets[index], self._config.plan.crop_size
        shift = self._config.plan.colour_shift
        if self._config.plan.device_augmentation:
            colours = draw_colours(self._config.plan.inputs, shift if sample.image.ndim == 3 else 0.0, rng)
            return cut_window(sample, targets, matrix, size, colours)
        crop = cut(sample, targets, matrix, size)
        return replace(crop, image=shift_colours(crop.image, shift, rng)) if shift and crop.image.ndim == 3 else crop


def _likely(sample: Sample, rim_width: float) -> Mask:
    """Return unlabelled pixels that are most likely background: by their brightness, or because a cell ends there."""
    gray, label = sample.gray, sample.label
    around = Surroundings(gray, label)
    likely = likely_background(gray, label, around=around)
    if rim_width < 1:
        return likely
    rim = outline_rim(label, rim_width, around=around)
    ends = rim.pixels & ~as_bright_as_cell(gray, label, rim, around=around)
    return np.asarray(likely | ends)


def _silenced(crop: Crop | UncutCrop) -> Crop | UncutCrop:
    """Return a crop without a label: it teaches nothing."""
    return replace(crop, label=np.full_like(crop.label, -1))


def _uncut(crops: Sequence[UncutCrop]) -> UncutBatch:
    return UncutBatch(
        label=np.stack([crop.label for crop in crops]),
        turn=np.stack([crop.turn for crop in crops]),
        windows=packed([crop.window for crop in crops]),
    )


def _summary(targets: Targets) -> Summary:
    return Summary(
        cell_pixels=targets.inside.size,
        centers=targets.centers,
        diameter=targets.diameter,
        background=targets.background,
        likely_pixels=0 if targets.likely is None else int(np.bitwise_count(targets.likely).sum()),
    )


def _background_weight(about: Sequence[Summary], config: Config) -> float:
    """Return the weight (from 1) with which background, labelled and likely, has its share of the pixels."""
    return background_weight(
        sum(one.cell_pixels for one in about),
        sum(one.background for one in about),
        config.likely_background * sum(one.likely_pixels for one in about),
        config.background_share,
    )
