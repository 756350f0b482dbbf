"""Training items with their targets, and the batches drawn from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.types import Floats, Mask
from cellsparse_torch.windows import packed
from cellsparse_trainer.data.background import LIKELY, Surroundings, likely_background
from cellsparse_trainer.data.lru_cache import SizedLruCache
from cellsparse_trainer.data.outline_rim import as_bright_as_cell, outline_rim
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import ALONE, Ranks, crop_random
from cellsparse_unet.config import Config
from cellsparse_unet.crops import UncutCrop, crop_at, window_at
from cellsparse_unet.targets import BACKGROUND, IGNORED, NOT_CENTRE, mark_touching, outline_classes, three_classes

CACHE_BYTES = 2**28
"""Memory for the prepared items that were used last."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One training item with its targets and the pixels that crops are drawn around."""

    image: npt.NDArray[np.float32]
    """As in `Sample`: axes YX or ZYX, or YXC or ZYXC, values 0 to 1."""
    classes: npt.NDArray[np.int8]
    """Axes as the image's without channels: -1 not labelled, 0 background, 1 outer, 2 centre, `LIKELY` (-2) likely
    background, `NOT_CENTRE` (-3) background or outer, `TOUCHING` (3) outer beside another cell."""
    anchors: tuple[npt.NDArray[np.int64], ...]
    """Flat pixel indices: one array per labelled cell, then one of labelled background if there is any."""

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        return self.image.nbytes + self.classes.nbytes + sum(a.nbytes for a in self.anchors)


def prepare(sample: Sample, config: Config) -> Prepared:
    """Make the targets of one item.

    Args:
        sample: The item; not changed.
        config: Shape and centre of cells, distance of planes, and what is looked for on unlabelled pixels.
    """
    flat = sample.label.ravel()
    labelled = np.flatnonzero(flat >= 0)
    order = labelled[np.argsort(flat[labelled], kind="stable")]
    anchors = np.split(order, np.flatnonzero(np.diff(flat[order])) + 1) if len(order) else []
    anchors.sort(key=lambda pixels: bool(flat[pixels[0]] == BACKGROUND))
    draw = outline_classes if config.target_shape == "outline" else three_classes
    classes = draw(sample.label, config.centre_scale, config.plane_distance)
    around = Surroundings(sample.gray, sample.label, config.plane_distance)
    if config.likely_background > 0:
        likely = likely_background(around.image, sample.label, config.plane_distance, around)
        classes[likely & (classes == IGNORED)] = LIKELY
    bright = _add_rim(classes, sample, config, around)
    if config.border_weight > 1:
        classes = mark_touching(classes, sample.label, bright)
    return Prepared(image=sample.image, classes=classes, anchors=tuple(anchors))


def _add_rim(classes: npt.NDArray[np.int8], sample: Sample, config: Config, around: Surroundings) -> Mask:
    """Give unlabelled pixels just outside outlines what is known of them: background, or at least no centre.

    Returns:
        Those that may be a neighbour.
    """
    rim = outline_rim(sample.label, config.outline_rim, config.plane_distance, around)
    bright = as_bright_as_cell(around.image, sample.label, rim, config.plane_distance, around)
    classes[rim.pixels & ~bright & (classes == IGNORED)] = LIKELY if config.likely_background > 0 else NOT_CENTRE
    classes[bright & (classes == IGNORED)] = NOT_CENTRE
    return bright


@dataclass(frozen=True, kw_only=True)
class UncutBatch:
    """Crops for one step whose images the device takes."""

    classes: npt.NDArray[np.int64]
    """Shape (B, ...), as in `Prepared`."""
    contrast: npt.NDArray[np.float32]
    """Factors by which intensities are stretched around each channel's mean, shape (B,)."""
    windows: dict[str, npt.NDArray[Any]]
    """See `windows.packed`."""


class Sampler:
    """Draws batches, a pure function of seed, step and rank, from a bounded cache of prepared items.

    Args:
        samples: Training items, read when asked for; the ones without a labelled pixel are left out.
        config: Sizes and strengths.
        ranks: Whose share of the crops batches hold.

    Raises:
        InvalidArgument: No item has a labelled cell.
    """

    def __init__(self, samples: Sequence[Sample], config: Config, ranks: Ranks = ALONE) -> None:
        self._samples = samples
        self._config = config
        self._ranks = ranks
        self._prepared = SizedLruCache(self._prepare, CACHE_BYTES)
        labels = [(bool((s.label >= 0).any()), bool((s.label > 0).any())) for s in samples]
        self._usable = [n for n, (labelled, _) in enumerate(labels) if labelled]
        if not any(cells for _, cells in labels):
            raise InvalidArgument(
                f"None of the {len(labels)} training items has a labelled cell; label at least one.", "dataset_id"
            )

    def batch(self, step: int) -> "tuple[Floats, npt.NDArray[np.int64]] | UncutBatch":
        """Draw the crops of a step (from 0).

        Returns:
            Images (float32, (B, C, Y, X) or (B, C, Z, Y, X)) and classes (int64, without C, as in `Prepared`). With
            `Plan.device_augmentation` the images are not cut.
        """
        plan = self._config.plan
        randoms = [crop_random(plan.seed, step, number) for number in self._ranks.share(plan.crops_per_step)]
        if plan.device_augmentation:
            return _uncut([self._uncut_crop(rng) for rng in randoms])
        crops = [self._crop(rng) for rng in randoms]
        images = np.stack([image for image, _ in crops])
        several = images.ndim - 1 > crops[0][1].ndim
        return (
            np.ascontiguousarray(np.moveaxis(images, -1, 1)) if several else images[:, None],
            np.stack([classes for _, classes in crops]).astype(np.int64),
        )

    def _crop(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
        item, anchor = self._anchor(rng)
        return crop_at(item.image, item.classes, anchor, self._config, rng)

    def _uncut_crop(self, rng: np.random.Generator) -> UncutCrop:
        item, anchor = self._anchor(rng)
        return window_at(item.image, item.classes, anchor, self._config, rng)

    def _anchor(self, rng: np.random.Generator) -> tuple[Prepared, int]:
        """Draw an item and the labelled pixel (its flat index) to draw a crop around."""
        item = self._prepared[self._usable[rng.integers(len(self._usable))]]
        group = item.anchors[rng.integers(len(item.anchors))]
        return item, int(group[rng.integers(len(group))])

    def _prepare(self, index: int) -> Prepared:
        return prepare(self._samples[index], self._config)


def _uncut(crops: Sequence[UncutCrop]) -> UncutBatch:
    return UncutBatch(
        classes=np.stack([crop.classes for crop in crops]).astype(np.int64),
        contrast=np.array([crop.contrast for crop in crops], np.float32),
        windows=packed([crop.window for crop in crops]),
    )
