"""Which crops a step trains on: a pure function of the seed and the step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cellsparse_cellpose_sam.config import CROP, Config
from cellsparse_cellpose_sam.targets import make_targets
from cellsparse_common.errors import InvalidArgument
from cellsparse_torch.flows.balance import background_weight
from cellsparse_torch.flows.crops import Crop, affine_map, cut
from cellsparse_torch.flows.targets import Targets
from cellsparse_trainer.data.background import likely_background
from cellsparse_trainer.data.colours import shift_colours
from cellsparse_trainer.data.lru_cache import SizedLruCache
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.data.target_cache import DiskCache
from cellsparse_trainer.distributed.ranks import ALONE, Ranks, crop_random

BACKGROUND_CROPS = 0.25
"""Share of the crops placed around a background pixel instead of a cell, where some background is labelled."""

MARGIN = 0.15
"""Smallest distance of the pixel a crop is placed around from the crop's border, relative to its side."""

TARGET_BYTES = 2**28
"""Memory for the targets of images that were used last."""

_MAX_SEED = 2**63


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops of side S for one step."""

    image: npt.NDArray[np.float32]
    """Shape (B, 3, S, S); channels that the images do not have are zero, as Cellpose has it."""
    label: npt.NDArray[np.int16]
    """Shape (B, S, S): -1 not labelled, 0 background, 1 cell, `LIKELY` (-2) likely background."""
    flow: npt.NDArray[np.float32]
    """Flows (y, x), zero outside labelled cells, shape (B, 2, S, S)."""
    seed: int
    """Seed of what is random in the network in this step, on this process."""


class Sampler:
    """Draws batches of crops around labelled cells, each cell with the same chance, and around labelled background.

    The targets of all images are made once; those used last stay in memory.

    Args:
        samples: Training images.
        config: The settings.
        ranks: Whose share of the crops batches hold.
        disk_cache: Where targets may be kept on disk.

    Attributes:
        diameter: Mean over the images of the median diameter of their labelled cells, in pixels.
        background_weight: Weight of a background pixel relative to a cell's that gives the background its share.

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
        self._cells: list[tuple[int, npt.NDArray[np.int64]]] = []
        self._background: list[int] = []
        diameters, pixels = [], {"cells": 0, "background": 0, "likely": 0}
        for index in range(len(samples)):
            targets = self._targets[index]
            self._cells += [(index, center) for center in targets.centers]
            self._background += [index] if targets.background else []
            diameters += [targets.diameter] if len(targets.centers) else []
            pixels["cells"] += targets.inside.size
            pixels["background"] += targets.background
            pixels["likely"] += 0 if targets.likely is None else int(np.bitwise_count(targets.likely).sum())
        if not self._cells:
            raise InvalidArgument(f"None of the {len(samples)} training images has a labelled cell.")
        self.diameter = float(np.mean(diameters))
        likely = config.likely_background * pixels["likely"]
        self.background_weight = background_weight(
            pixels["cells"], pixels["background"], likely, config.background_share
        )

    def _make(self, index: int) -> Targets:
        sample = self._samples[index]
        wanted = self._config.likely_background > 0
        likely = likely_background(sample.gray, sample.label) if wanted else None
        return make_targets(sample.label, likely, self._disk_cache)

    def batch(self, step: int) -> Batch:
        """Draw the batch of a step (from 0)."""
        plan = self._config.plan
        share = self._ranks.share(plan.crops_per_step)
        crops = [self._crop(crop_random(plan.seed, step, number)) for number in share]
        image = np.zeros((len(crops), 3, CROP, CROP), np.float32)
        if self._config.plan.channels:
            image[:, : self._config.plan.inputs] = [np.moveaxis(crop.image, -1, 0) for crop in crops]
        else:
            image[:, 0] = [crop.image for crop in crops]
        # A fourth number keeps this stream apart from those of the crops.
        seeds = np.random.default_rng([plan.seed, step, 1, self._ranks.rank])
        return Batch(
            image=image,
            label=np.stack([crop.label for crop in crops]),
            flow=np.stack([crop.flow for crop in crops]),
            seed=int(seeds.integers(_MAX_SEED)),
        )

    def _crop(self, rng: np.random.Generator) -> Crop:
        """Cut a crop that shows a labelled cell or labelled background, turned, scaled, mirrored and recoloured."""
        index, pixel = self._anchor(rng)
        margin = int(MARGIN * CROP)
        # The pixel falls on a whole crop pixel, so rounding cannot lose it.
        target = rng.integers(margin, CROP - margin, 2)
        scale = 1 + self._config.scale_range * (rng.random() - 0.5)
        matrix = affine_map(pixel, target, scale=scale, angle=rng.random() * 2 * np.pi, mirrored=rng.random() < 0.5)
        crop = cut(self._samples[index], self._targets[index], matrix, CROP)
        shift = self._config.plan.colour_shift
        return replace(crop, image=shift_colours(crop.image, shift, rng)) if shift and crop.image.ndim == 3 else crop

    def _anchor(self, rng: np.random.Generator) -> tuple[int, npt.NDArray[np.int64]]:
        """Return an image's index and the pixel (y, x) that a crop is placed around."""
        if self._background and rng.random() < BACKGROUND_CROPS:
            index = self._background[rng.integers(len(self._background))]
            label = self._samples[index].label
            pixels = np.flatnonzero(label == 0)
            return index, np.array(divmod(int(pixels[rng.integers(pixels.size)]), label.shape[1]))
        return self._cells[rng.integers(len(self._cells))]
