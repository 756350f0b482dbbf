"""Training crops: drawn around labelled pixels, augmented, never supervised outside the image."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.samples import Sample
from cellsparse_unet.background import likely_background
from cellsparse_unet.config import Config
from cellsparse_unet.targets import BACKGROUND, IGNORED, LIKELY_BACKGROUND, three_classes

TRIES = 4
CACHE_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One training item with its targets and the pixels that crops are drawn around."""

    image: npt.NDArray[np.float32]
    """Axes YX, values 0 to 1."""
    classes: npt.NDArray[np.int8]
    """Axes YX: -1 not labelled, 0 background, 1 outer, 2 centre, 3 not labelled but likely background."""
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
        config: Centre size, and whether likely background is looked for.

    Returns:
        The item, ready to crop from.
    """
    flat = sample.label.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat[order], 0) :]
    anchors = np.split(order, np.flatnonzero(np.diff(flat[order])) + 1) if len(order) else []
    anchors.sort(key=lambda pixels: bool(flat[pixels[0]] == BACKGROUND))
    classes = three_classes(sample.label, config.centre_scale)
    if config.likely_background > 0:
        classes[likely_background(sample.image, sample.label) & (classes == IGNORED)] = LIKELY_BACKGROUND
    return Prepared(image=sample.image, classes=classes, anchors=tuple(anchors))


def crop_at(
    item: Prepared, anchor: int, config: Config, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Draws one augmented crop that holds a labelled pixel.

    Pixels from outside the image are mirrored in the image and -1 in the classes.

    Args:
        item: What to crop from; may be smaller than the crop.
        anchor: Flat index of the labelled pixel to draw around.
        config: Crop size and strength of augmentation.
        rng: Where random numbers come from.

    Returns:
        Image (float32 YX) and classes (int8 YX), both of the crop's size.
    """
    size = config.plan.crop_size
    pixel = np.array(np.unravel_index(anchor, item.image.shape), float)
    place = rng.integers(0, size, 2) if config.spread else rng.integers(size // 4, size - size // 4, 2)
    for _ in range(TRIES):
        turn = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
        zoom = 1 / rng.uniform(1 - config.scale_range, 1 + config.scale_range)
        mirror = rng.choice([-1.0, 1.0]) if config.flip else 1.0
        matrix = zoom * np.array([[np.cos(turn), -np.sin(turn) * mirror], [np.sin(turn), np.cos(turn) * mirror]])
        classes = _take(item.classes, matrix, pixel, place, size)
        if ((classes != IGNORED) & (classes != LIKELY_BACKGROUND)).any():
            break
    else:
        matrix = np.eye(2)  # the anchor itself is then a pixel of the crop
        classes = _take(item.classes, matrix, pixel, place, size)
    image = ndimage.affine_transform(item.image, matrix, pixel - matrix @ place, (size, size), order=1, mode="reflect")
    return _contrasted(image, config.contrast, rng), classes


def _take(
    classes: npt.NDArray[np.int8],
    matrix: npt.NDArray[np.float64],
    pixel: npt.NDArray[np.float64],
    place: npt.NDArray[np.int64],
    size: int,
) -> npt.NDArray[np.int8]:
    """Nearest-neighbour crop in which the image's `pixel` lies at `place`; -1 outside the image."""
    at = np.indices((size, size)).reshape(2, -1)
    ys, xs = np.rint(matrix @ (at - place[:, None]) + pixel[:, None]).astype(int)
    inside = (ys >= 0) & (ys < classes.shape[0]) & (xs >= 0) & (xs < classes.shape[1])
    out = np.full(size * size, IGNORED, np.int8)
    out[inside] = classes[ys[inside], xs[inside]]
    return out.reshape(size, size)


def _contrasted(image: npt.NDArray[np.float32], strength: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Stretches intensities around their mean by a factor of 1 - strength to 1 + strength."""
    mean = image.mean()
    stretched: npt.NDArray[np.float32] = (mean + (image - mean) * rng.uniform(1 - strength, 1 + strength)).astype(
        np.float32
    )
    return stretched


class Sampler:
    """Batches as a pure function of seed and step, from a bounded cache of prepared items.

    Args:
        samples: Training items, read when asked for; the ones without a labelled pixel are left out.
        config: Sizes and strengths.

    Raises:
        InvalidArgument: No item has a labelled cell.
    """

    def __init__(self, samples: Sequence[Sample], config: Config) -> None:
        self._samples = samples
        self._config = config
        self._cache: OrderedDict[int, Prepared] = OrderedDict()
        self._cached_bytes = 0
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
            Images (float32, (B, 1, Y, X)) and classes (int64, (B, Y, X), as in `Prepared`).
        """
        rng = np.random.default_rng([self._config.plan.seed, step])
        crops = [self._crop(rng) for _ in range(self._config.plan.batch_size)]
        return (
            np.stack([image for image, _ in crops])[:, None],
            np.stack([classes for _, classes in crops]).astype(np.int64),
        )

    def _crop(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
        item = self._item(self._usable[rng.integers(len(self._usable))])
        group = item.anchors[rng.integers(len(item.anchors))]
        return crop_at(item, int(group[rng.integers(len(group))]), self._config, rng)

    def _item(self, index: int) -> Prepared:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        item = prepare(self._samples[index], self._config)
        self._cache[index] = item
        self._cached_bytes += item.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return item
