"""Training crops: drawn around labelled pixels, augmented, never supervised outside the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.data.background import likely_background
from cellsparse_trainer.data.lru_cache import SizedLruCache
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import ALONE, Ranks, crop_random
from cellsparse_unet.config import Config
from cellsparse_unet.targets import BACKGROUND, IGNORED, LIKELY_BACKGROUND, three_classes

TRIES = 4
CACHE_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One training item with its targets and the pixels that crops are drawn around."""

    image: npt.NDArray[np.float32]
    """Axes YX or ZYX, values 0 to 1."""
    classes: npt.NDArray[np.int8]
    """Axes as the image's: -1 not labelled, 0 background, 1 outer, 2 centre, 3 not labelled but likely background."""
    anchors: tuple[npt.NDArray[np.int64], ...]
    """Flat pixel indices: one array per labelled cell, then one of labelled background if there is any."""

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        return self.image.nbytes + self.classes.nbytes + sum(a.nbytes for a in self.anchors)


def prepare(sample: Sample, config: Config) -> Prepared:
    """Makes the targets of one item.

    Args:
        sample: The item; not changed.
        config: Centre size, distance of planes, and whether likely background is looked for.

    Returns:
        The item, ready to crop from.
    """
    flat = sample.label.ravel()
    labelled = np.flatnonzero(flat >= 0)
    order = labelled[np.argsort(flat[labelled], kind="stable")]
    anchors = np.split(order, np.flatnonzero(np.diff(flat[order])) + 1) if len(order) else []
    anchors.sort(key=lambda pixels: bool(flat[pixels[0]] == BACKGROUND))
    classes = three_classes(sample.label, config.centre_scale, config.plane_distance)
    if config.likely_background > 0:
        likely = likely_background(sample.image, sample.label, config.plane_distance)
        classes[likely & (classes == IGNORED)] = LIKELY_BACKGROUND
    return Prepared(image=sample.image, classes=classes, anchors=tuple(anchors))


def crop_at(
    item: Prepared, anchor: int, config: Config, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Draws one augmented crop that holds a labelled pixel.

    Pixels from outside the image are mirrored in the image and -1 in the classes. Stacks are turned in their planes;
    their depth changes as much less than their width as planes are further apart than pixels.

    Args:
        item: What to crop from; may be smaller than the crop.
        anchor: Flat index of the labelled pixel to draw around.
        config: Crop size and strength of augmentation.
        rng: Where random numbers come from.

    Returns:
        Image (float32 YX or ZYX) and classes (int8), both of the crop's size.
    """
    size, depth = config.plan.crop_size, config.plan.crop_depth
    shape = (size, size) if depth is None else (depth, size, size)
    pixel = np.array(np.unravel_index(anchor, item.image.shape), float)
    place = rng.integers(0, size, 2) if config.spread else rng.integers(size // 4, size - size // 4, 2)
    if depth is not None:
        plane = rng.integers(0, depth) if config.spread else rng.integers(depth // 4, depth - depth // 4)
        place = np.array([plane, *place])
    for _ in range(TRIES):
        matrix = _augmentation(config, rng)
        classes = _take(item.classes, matrix, pixel, place, shape)
        if ((classes != IGNORED) & (classes != LIKELY_BACKGROUND)).any():
            break
    else:
        matrix = np.eye(config.dims)  # the anchor itself is then a pixel of the crop
        classes = _take(item.classes, matrix, pixel, place, shape)
    image = ndimage.affine_transform(item.image, matrix, pixel - matrix @ place, shape, order=1, mode="reflect")
    return _contrasted(image, config.contrast, rng), classes


def _augmentation(config: Config, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Where a crop's pixels come from, relative to its anchor: turned, scaled and mirrored."""
    turn = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
    zoom = 1 / rng.uniform(1 - config.scale_range, 1 + config.scale_range)
    mirror = rng.choice([-1.0, 1.0]) if config.flip else 1.0
    matrix = zoom * np.array([[np.cos(turn), -np.sin(turn) * mirror], [np.sin(turn), np.cos(turn) * mirror]])
    if config.dims == 2:
        return matrix
    scale = config.scale_range / max(1.0, config.plane_distance)
    deep = np.zeros((3, 3))
    deep[0, 0] = 1 / rng.uniform(1 - scale, 1 + scale) * (rng.choice([-1.0, 1.0]) if config.flip else 1.0)
    deep[1:, 1:] = matrix
    return deep


def _take(
    classes: npt.NDArray[np.int8],
    matrix: npt.NDArray[np.float64],
    pixel: npt.NDArray[np.float64],
    place: npt.NDArray[np.int64],
    shape: tuple[int, ...],
) -> npt.NDArray[np.int8]:
    """Nearest-neighbour crop in which the image's `pixel` lies at `place`; -1 outside the image."""
    at = np.indices(shape).reshape(len(shape), -1)
    source = np.rint(matrix @ (at - place[:, None]) + pixel[:, None]).astype(int)
    inside = ((source >= 0) & (source < np.reshape(classes.shape, (-1, 1)))).all(axis=0)
    out = np.full(at.shape[1], IGNORED, np.int8)
    out[inside] = classes[tuple(source[:, inside])]
    return out.reshape(shape)


def _contrasted(image: npt.NDArray[np.float32], strength: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Stretches intensities around their mean by a factor of 1 - strength to 1 + strength."""
    mean = image.mean()
    stretched: npt.NDArray[np.float32] = (mean + (image - mean) * rng.uniform(1 - strength, 1 + strength)).astype(
        np.float32
    )
    return stretched


class Sampler:
    """Batches as a pure function of seed, step and rank, from a bounded cache of prepared items.

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

    def batch(self, step: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Draws the crops of one step.

        Args:
            step: Number of the step, from 0.

        Returns:
            Images (float32, (B, 1, Y, X) or (B, 1, Z, Y, X)) and classes (int64, without the 1, as in `Prepared`).
        """
        plan = self._config.plan
        crops = [self._crop(crop_random(plan.seed, step, place)) for place in self._ranks.share(plan.crops_per_step)]
        return (
            np.stack([image for image, _ in crops])[:, None],
            np.stack([classes for _, classes in crops]).astype(np.int64),
        )

    def _crop(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
        item = self._prepared[self._usable[rng.integers(len(self._usable))]]
        group = item.anchors[rng.integers(len(item.anchors))]
        return crop_at(item, int(group[rng.integers(len(group))]), self._config, rng)

    def _prepare(self, index: int) -> Prepared:
        return prepare(self._samples[index], self._config)
