"""The candidates of one image: cells of a prediction, and blobs of the classical detector that it misses."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.classical.whole import segment_all
from cellsparse_common.imaging.types import Labels, Mask
from cellsparse_sparsifier.suggest.features import NAMES, Features, gray, measure
from cellsparse_sparsifier.suggest.overlaps import Numbers, best_overlaps, disagreement
from cellsparse_sparsifier.suggest.patches import Patch, background_spots, cell_patches

SAME = 0.5
"""A cell and a blob are the same from this IoU on."""
CONSISTENT = 0.3
"""A cell of at most this disagreement counts more than a blob that overlaps it."""
COVERED = 0.2
"""A cell is seen by the other side if at least this share of its pixels is."""
SMALLEST, LARGEST = 0.25, 4.0
"""Areas of candidates, relative to the median of the image's candidates: what is outside is dirt, or several cells."""
MOST = 1000
"""Most candidates of an image; of more a part is drawn at random."""
SPOTS = 3
"""Most spots of background of an image."""


class Seen(Enum):
    """Who sees a candidate."""

    BOTH = 0
    """The prediction and the detector; without a prediction the detector alone."""
    DETECTOR = 1
    """The detector, but not the prediction: perhaps a cell that the model misses."""
    MODEL = 2
    """The prediction, but not the detector: perhaps no cell."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The candidates of one image."""

    name: str
    """Name of the image."""
    features: Features
    """(N, len(NAMES)), see `features.measure`."""
    intensity: Numbers
    """(N,) mean of the image over each candidate, in its own units."""
    disagreement: Numbers
    """(N,) 1 - mean best IoU with the image's other predictions, 0 to 1."""
    seen: tuple[Seen, ...]
    """(N,)"""
    patches: tuple[Patch, ...]
    """(N,)"""
    labelled: Features
    """(M, len(NAMES)) of the cells that are labelled already, and of what was answered "not a cell"."""
    spots: tuple[tuple[Patch, float], ...]
    """Spots of background with their brightness, 0 black to 1 white."""

    def __len__(self) -> int:
        return len(self.patches)


def find_candidates(
    name: str,
    image: npt.NDArray[Any],
    labelled: Labels | None = None,
    predictions: Sequence[Labels] = (),
    *,
    seed: int = 0,
) -> Candidates:
    """Find what could be marked next in one image.

    A candidate touches no border, has no labelled pixel, and has about the size of the others.

    Args:
        name: Name of the image.
        image: YX or YXC, real numbers.
        labelled: YX, -1 not labelled, 0 background, n > 0 cell n; None: nothing is labelled.
        predictions: Label images of the same size: the prediction, then those of the turned image, turned back, and of
            other models; empty: there is no model yet.
        seed: Decides which candidates are left out where there are very many.

    Raises:
        ValueError: The image has no pixel or other axes, or a label image has another size.
    """
    shape = image.shape[:2]
    annotation = np.full(shape, -1, np.int32) if labelled is None else labelled
    if any(each.shape != shape for each in (annotation, *predictions)):
        sizes = ", ".join(str(each.shape) for each in (annotation, *predictions))
        raise ValueError(f"label images of shapes {sizes} do not fit the image of shape {shape}")
    blobs = segment_all(image)
    # Numbers may be anything up to 2**31 - 1: counting by them would take as much memory.
    found = [_numbered(np.maximum(each, 0)) for each in predictions]
    marked = _numbered(np.maximum(annotation, 0))
    label, seen = _merged(blobs, found[0], disagreement(found[0], found[1:])) if found else _alone(blobs)
    diameter = _diameter(label if label.any() else marked)
    wrong = disagreement(label, found[1:])
    numbers = _allowed(label, annotation)
    if numbers.size > MOST:
        random = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])
        numbers = np.sort(random.permutation(numbers)[:MOST])
    everything = np.where(marked > 0, marked + label.max(initial=0), label)
    features = measure(image, label, around=everything, diameter=diameter)
    may_be: Mask = (everything > 0) | np.any([each > 0 for each in found] or [blobs > 0], axis=0)
    taken = may_be | (annotation >= 0)
    plane = gray(image)
    return Candidates(
        name=name,
        features=features[numbers - 1],
        intensity=_intensities(image, label, numbers),
        disagreement=wrong[numbers - 1],
        seen=tuple(Seen(int(seen[number - 1])) for number in numbers),
        patches=tuple(cell_patches(label, taken, numbers, diameter)) if numbers.size else (),
        labelled=np.concatenate(
            [measure(image, marked, around=everything, diameter=diameter), features[_refused(label, annotation) - 1]]
        ),
        spots=tuple(background_spots(_bright(plane), taken, diameter, SPOTS)) if label.any() else (),
    )


def only_known(found: Candidates) -> Candidates:
    """Return an image without its candidates: its labelled cells say what is known, and none is suggested."""
    return Candidates(
        name=found.name,
        features=np.zeros((0, len(NAMES))),
        intensity=np.zeros(0),
        disagreement=np.zeros(0),
        seen=(),
        patches=(),
        labelled=found.labelled,
        spots=(),
    )


def _alone(blobs: Labels) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Return blobs, which are all there is without a model."""
    return blobs, np.full(int(blobs.max(initial=0)), Seen.BOTH.value)


def _merged(blobs: Labels, prediction: Labels, wrong: Numbers) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Return one label image of predicted cells and blobs that they miss, numbered from 1, and who sees each.

    Args:
        blobs: YX, 0 background, 1 ... n the blobs.
        prediction: YX, 0 background, 1 ... n the cells.
        wrong: Disagreement of each cell. Where a cell and a blob overlap and are not the same, a cell that changes
            when the image is turned gives way to the blob: the model of the first rounds draws nonsense.
    """
    cells_best, cells_covered = best_overlaps(prediction, blobs)
    blobs_best, _ = best_overlaps(blobs, prediction)
    doubtful = (cells_best < SAME) & (cells_covered >= COVERED) & (wrong > CONSISTENT)
    kept = np.concatenate([[False], ~doubtful])
    cells = np.where(kept[prediction], prediction, 0)
    missed = np.concatenate([[False], (blobs_best < SAME) & (best_overlaps(blobs, cells)[1] < COVERED)])
    label = np.where(cells > 0, cells, np.where(missed[blobs], blobs + kept.size, 0))
    numbers = np.unique(label[label > 0])
    of_model = numbers < kept.size
    seen = np.full(numbers.size, Seen.DETECTOR.value)
    only_model = cells_covered[numbers[of_model] - 1] < COVERED
    seen[of_model] = np.where(only_model, Seen.MODEL.value, Seen.BOTH.value)
    return _numbered(label.astype(np.int32)), seen


def _numbered(label: Labels) -> Labels:
    """Return a label image with the numbers 1 ... n in their order."""
    numbers, place = np.unique(label, return_inverse=True)
    start = 0 if numbers.size and numbers[0] == 0 else 1
    return (place.reshape(label.shape) + start).astype(np.int32)


def _diameter(label: Labels) -> float:
    """Return the median diameter of the cells of a label image in pixels, at least 4; 20 without cells."""
    areas = np.bincount(label[label > 0].ravel())
    areas = areas[areas > 0]
    return max(4.0, float(2 * np.sqrt(np.median(areas) / np.pi))) if areas.size else 20.0


def _allowed(label: Labels, annotation: Labels) -> npt.NDArray[np.int64]:
    """Return the numbers of the cells that may be suggested, ascending."""
    count = int(label.max(initial=0))
    areas = np.bincount(label.ravel(), minlength=count + 1)
    middle = float(np.median(areas[1:])) if count else 0.0
    good = (areas >= SMALLEST * middle) & (areas <= LARGEST * middle)
    good[0] = False
    edge = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
    good[edge] = False
    good[label[annotation >= 0]] = False
    return np.flatnonzero(good)


def _refused(label: Labels, annotation: Labels) -> npt.NDArray[np.int64]:
    """Return the numbers of the cells that are mostly labelled as background: people said that they are none."""
    count = int(label.max(initial=0))
    areas = np.bincount(label.ravel(), minlength=count + 1)
    background = np.bincount(label[annotation == 0], minlength=count + 1)
    background[0] = 0
    return np.flatnonzero(2 * background > areas)


def _intensities(image: npt.NDArray[Any], label: Labels, numbers: npt.NDArray[np.int64]) -> Numbers:
    plane = image.astype(np.float64)
    plane = plane.mean(2) if plane.ndim == 3 else plane
    if not numbers.size:
        return np.zeros(0)
    return np.nan_to_num(np.asarray(ndimage.mean(plane, label, numbers), np.float64))


def _bright(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return grey values in which cells are bright: they are the rarer side of the median, as for the detector."""
    return -plane if plane.mean() < np.median(plane) else plane
