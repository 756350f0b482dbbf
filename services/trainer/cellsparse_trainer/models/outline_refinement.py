"""Outlines moved to where the image itself shows them, after the model of Chan & Vese 2001 (doi:10.1109/83.902291).

A network that has seen few cells knows where a cell is, but only about where it ends. The image shows that exactly,
where cells differ from their surroundings in brightness. So pixels near an outline are given to the side that they
resemble: the cell if they are nearer to the mean of its inside than `level` says, else its surroundings. Chan and Vese
draw the line in the middle between the two means, a level of 0.5. People who draw cells do not always: `fit_level`
takes the level at which labelled cells are found as they are labelled, and none where that does not help.

The network's outline errs in another way than the brightness does, so it may count, too, as the shape does in Leventon
2000 (doi:10.1109/CVPR.2000.855835): the farther inside it a pixel lies, the darker it may be, and the farther outside,
the brighter it must be. By how much is fitted together with the level: a network that has seen many cells is to be
trusted more.

Images of one dataset differ in how wide people draw in them, and a network learns some of that. The level at which it
draws outlines by itself, over all cells of an image, shows it (`own_level`). So an image whose own level is above that
of the labelled ones is refined at a level that is higher by as much.

All functions are pure. Axes are YX; images are normalised, with brightness from 0 to 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label as components

from cellsparse_common.imaging.images import brightness
from cellsparse_common.imaging.scores import Segmentation
from cellsparse_common.imaging.types import Floats, GrayImage, Labels, Mask
from cellsparse_trainer.data.samples import Sample

OUTLINE_LEVEL = "outline_level"
OWN_LEVEL = "own_outline_level"
OUTLINE_PRIOR = "outline_prior"
"""Names of an `OutlineLevel`'s numbers among what a model was fitted with (see `ModelConfig`)."""
LEVELS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
PRIORS = (0.0, 0.1, 0.2, 0.3)
"""What `fit_level` chooses from."""
LEAST_CELLS = 3
"""Fewest labelled cells that a level is chosen by."""
LEAST_OVERLAP = 0.5
"""IoU from which a found cell is a labelled one."""

DOUBT = 4
"""Number of an image's cells at which half of its own level is believed."""
LIMITS = (0.15, 0.7)
"""Lowest and highest level of an image."""

BAND = 0.4
"""How far an outline may move, as a share of the cell's radius."""
NARROWEST, WIDEST = 1.0, 7.0
"""Bounds of that in pixels."""
BLUR = 0.7
"""Standard deviation in pixels of the blur that takes noise from the image."""
LEAST_PIXELS = 3
"""Fewest pixels that a mean is taken of."""
LEAST_CONTRAST = 0.02
"""Least difference between the two means, beside the deviations below."""
DEVIATIONS = 1.5
"""Standard deviations of the surroundings' brightness that the two means have to differ by."""
THIN = 30
"""Up to so many pixels, spurs of a cell are not cut off: they would be most of it."""
LEAST_SHARE = 0.4
"""Share of its pixels that a cell has to keep; else it stays as it was."""


@dataclass(frozen=True, kw_only=True)
class OutlineLevel:
    """Where the outlines of cells are: 0 is as bright as their surroundings, 1 as their inside."""

    level: float
    """Of an image in which the model draws as it usually does, 0 to 1."""
    own: float | None = None
    """The level at which the model usually draws outlines by itself, 0 to 1; None: it is not known, and all images are
    refined at the same level."""
    prior: float = 0.0
    """By how much the level falls for a pixel as far inside the network's outline as that outline may move, and rises
    for one as far outside, 0 to 1."""

    def of(self, image: GrayImage, labels: Labels) -> float:
        """Return the level for an image.

        Args:
            image: Brightness.
            labels: The cells as the model draws them by itself.
        """
        return self.level if self.own is None else self.beside(own_level(image, labels))

    def beside(self, own: tuple[float, int] | None) -> float:
        """Return the level for an image of which `own_level` says this."""
        if own is None or self.own is None:
            return self.level
        level, cells = own
        trust = cells / (cells + DOUBT)
        return float(np.clip(self.level + trust * (level - self.own), *LIMITS))


@dataclass(frozen=True, kw_only=True)
class _Bands:
    """Which pixels may change, and which tell how bright the two sides are; arrays of the labels' shape."""

    owner: Labels
    """The cell that a pixel is of or may become part of; 0 none."""
    core: Mask
    """Deep inside of cells: stays."""
    around: Mask
    """Surroundings that are no part of a cell for sure."""
    nearest: Labels
    """The nearest cell."""
    inside: Floats
    """How far inside the nearest cell's outline, as a share of how far that may move; negative outside."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What an image shows of the cells that a network found in it, whatever the level."""

    smooth: GrayImage
    labels: Labels
    areas: npt.NDArray[np.int64]
    """Pixels of each cell, by its number; as the three below."""
    bands: _Bands
    outer: Floats
    """Brightness of the surroundings."""
    contrast: Floats
    """How much brighter the inside is."""
    clear: npt.NDArray[np.bool_]
    """Whether the cell differs from its surroundings."""


def refined(image: GrayImage, labels: Labels, level: float, prior: float = 0.0) -> Labels:
    """Return the cells with outlines where the image shows them.

    A cell that does not differ from its surroundings keeps its outline. So do outlines between cells that touch. Cells
    keep their numbers, and none vanishes.

    Args:
        image: Brightness.
        labels: The cells: 0 background, n > 0 cell n; not changed.
        level: Brightness at an outline: 0 is that of the cell's surroundings, 1 that of its inside.
        prior: How much the outline of `labels` counts beside it; see `OutlineLevel.prior`.
    """
    return _moved(_look(image, labels), level, prior) if labels.any() else labels


def own_level(image: GrayImage, labels: Labels) -> tuple[float, int] | None:
    """Return the level at which outlines were drawn, the median of cells that differ from their surroundings.

    Args:
        image: Brightness.
        labels: The cells: 0 background, n > 0 cell n.

    Returns:
        The level, and how many cells show it; None where none does.
    """
    return _own_level(_look(image, labels)) if labels.any() else None


def fit_level(samples: Sequence[Sample], predict: Callable[[Floats], Labels]) -> OutlineLevel | None:
    """Choose the level at which labelled cells are found as they are labelled.

    Args:
        samples: Samples with labelled cells, images with axes YX or YXC.
        predict: Segments one image, without refining outlines.

    Returns:
        The model's own level, one of `LEVELS` and one of `PRIORS`: the lowest level whose gain, in the mean IoU of
        labelled cells with what is found, is at most a standard error below the best gain, and the prior with the best
        gain at that level. A level that is too high cuts cells off. None where the best gain is less than its standard
        error, or there are too few cells to tell.
    """
    pairs = [(sample, predict(sample.image)) for sample in samples]
    looks = [(sample, _look(sample.gray, found)) for sample, found in pairs if found.any()]
    owns = [_own_level(seen) for _, seen in looks]
    shown = [own for own in owns if own]
    usual = _weighted_median(*zip(*shown, strict=True)) if shown else None
    choices = [OutlineLevel(level=level, own=usual, prior=prior) for level in LEVELS for prior in PRIORS]
    gains: list[npt.NDArray[np.float64]] = []
    for (sample, seen), own in zip(looks, owns, strict=True):
        before = {pair: iou for pair, iou in _overlaps(sample.label, seen.labels).items() if iou > LEAST_OVERLAP}
        if before:
            refinements = [_moved(seen, choice.beside(own), choice.prior) for choice in choices]
            after = [_overlaps(sample.label, each) for each in refinements]
            gains.append(np.array([[each.get(pair, 0.0) - iou for pair, iou in before.items()] for each in after]))
    cells = np.concatenate(gains, axis=1) if gains else np.zeros((len(choices), 0))
    if cells.shape[1] < LEAST_CELLS:
        return None
    means = cells.mean(axis=1)
    best = int(np.argmax(means))
    error = float(cells[best].std(ddof=1)) / cells.shape[1] ** 0.5
    if means[best] <= error:
        return None
    table = means.reshape(len(LEVELS), len(PRIORS))
    lowest = int(np.flatnonzero((table >= means[best] - error).any(axis=1))[0])
    return choices[lowest * len(PRIORS) + int(table[lowest].argmax())]


def refine(image: Floats, found: Segmentation, level: OutlineLevel | None) -> Segmentation:
    """Return what a model found in an image with refined outlines.

    Args:
        image: Axes YX, with several channels YXC.
        found: The cells.
        level: Where outlines are; None: they stay.
    """
    if level is None or not found.labels.any():
        return found
    gray = brightness(image, 2)
    seen = _look(gray, found.labels)
    labels = _moved(seen, level.beside(_own_level(seen)), level.prior)
    return Segmentation(labels=labels, scores=found.scores)


def level_to_dict(level: OutlineLevel | None) -> dict[str, float]:
    """Return a level among what a model was fitted with; empty without one."""
    if level is None:
        return {}
    own = {} if level.own is None else {OWN_LEVEL: level.own}
    return {OUTLINE_LEVEL: level.level, **own, OUTLINE_PRIOR: level.prior}


def without_level(fitted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model was fitted with besides the level."""
    return {name: value for name, value in fitted.items() if name not in (OUTLINE_LEVEL, OWN_LEVEL, OUTLINE_PRIOR)}


def export_note(level: OutlineLevel | None) -> str:
    """Return what users of an exported model should know of a level, a paragraph of Markdown; empty without one."""
    if level is None:
        return ""
    return (
        "\nCellsparse also moves outlines to where the image's brightness shows them (`refine_outlines`, here at\n"
        f"level {level.level:g}). Other tools draw them as the network does.\n"
    )


def read_level(fitted: Mapping[str, Any]) -> OutlineLevel | None:
    """Return the level among what a model was fitted with; None without one.

    Raises:
        ValueError: It is no number from 0 to 1.
    """
    level, own, prior = (_read(fitted, name) for name in (OUTLINE_LEVEL, OWN_LEVEL, OUTLINE_PRIOR))
    return None if level is None else OutlineLevel(level=level, own=own, prior=prior or 0.0)


def _read(fitted: Mapping[str, Any], name: str) -> float | None:
    value = fitted.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; allowed: a number from 0 to 1, or none.")
    return float(value)


def _look(image: GrayImage, labels: Labels) -> _Seen:
    """Look at the cells of an image; there is at least one."""
    count = int(labels.max(initial=0)) + 1
    areas = np.bincount(labels.ravel(), minlength=count)
    smooth = _smooth(image)
    bands = _bands(labels, areas)
    outer, contrast, clear = _contrasts(smooth, labels, bands, count)
    return _Seen(smooth=smooth, labels=labels, areas=areas, bands=bands, outer=outer, contrast=contrast, clear=clear)


def _moved(seen: _Seen, level: float, prior: float) -> Labels:
    """Return what `refined` does."""
    owner, contrast = seen.bands.owner, seen.contrast
    limit = seen.outer[owner] + (level - prior * seen.bands.inside) * contrast[owner]
    like_cell = np.sign(contrast)[owner] * (seen.smooth - limit) > 0
    moved = np.where(seen.bands.core | (like_cell & (owner > 0)), owner, 0)
    moved = np.where(seen.clear[owner], moved, seen.labels)
    return _tidy(moved, seen.labels, seen.areas, seen.clear)


def _own_level(seen: _Seen) -> tuple[float, int] | None:
    """Return what `own_level` does."""
    count = len(seen.areas)
    background = seen.labels == 0
    inner_edge, outer_edge = (ndimage.binary_dilation(one) & ~one for one in (background, ~background))
    within, _, pixels_within = _moments(seen.smooth, seen.labels, inner_edge, count)
    beside, _, pixels_beside = _moments(seen.smooth, seen.bands.nearest, outer_edge, count)
    clear = seen.clear & (pixels_within > 0) & (pixels_beside > 0)
    clear[0] = False
    if not clear.any():
        return None
    levels = ((within + beside) / 2 - seen.outer)[clear] / seen.contrast[clear]
    return float(np.median(levels)), int(clear.sum())


def _smooth(image: GrayImage) -> GrayImage:
    """Take noise from an image."""
    return np.asarray(ndimage.gaussian_filter(np.asarray(image, np.float32), BLUR, mode="nearest"))


def _weighted_median(values: Sequence[float], weights: Sequence[int]) -> float:
    """Return the value that half of the weight lies below."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(np.asarray(weights, np.float64)[order])
    return float(np.clip(values[order[int(np.searchsorted(cumulative, cumulative[-1] / 2))]], 0, 1))


def _bands(labels: Labels, areas: npt.NDArray[np.int64]) -> _Bands:
    width = np.clip(BAND * np.sqrt(areas / np.pi), NARROWEST, WIDEST)
    width[0] = 0
    depth = ndimage.distance_transform_edt(~_edges(labels)) + 0.5
    away, indices = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    nearest = labels[tuple(indices)]
    reach = width[nearest]
    inside = np.where(labels > 0, depth, 0.5 - away) / np.maximum(reach, NARROWEST)
    return _Bands(
        owner=np.where(away <= reach, nearest, 0),
        core=(labels > 0) & (depth > width[labels]),
        around=(labels == 0) & (away > reach) & (away <= 2 * reach + 1),
        nearest=nearest,
        inside=inside.astype(np.float32),
    )


def _contrasts(
    smooth: GrayImage, labels: Labels, bands: _Bands, count: int
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Return how bright each cell's surroundings are, how much brighter its inside is, and whether that is clear."""
    inner, _, inner_pixels = _moments(smooth, labels, bands.core, count)
    outer, deviation, outer_pixels = _moments(smooth, bands.nearest, bands.around, count)
    contrast = inner - outer
    clear = np.abs(contrast) > DEVIATIONS * deviation + LEAST_CONTRAST
    clear &= (inner_pixels >= LEAST_PIXELS) & (outer_pixels >= LEAST_PIXELS)
    return outer, contrast, clear


def _edges(labels: Labels) -> Mask:
    """Find the pixels beside one of another label."""
    edge = np.zeros(labels.shape, bool)
    for one, other in _neighbours(labels.ndim):
        differ = labels[one] != labels[other]
        edge[one] |= differ
        edge[other] |= differ
    return edge


def _neighbours(axes: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return pairs of indices: of all pixels that have a next one along an axis, and of these next ones."""
    every = [slice(None)] * axes
    return [
        ((*every[:axis], slice(None, -1), *every[axis + 1 :]), (*every[:axis], slice(1, None), *every[axis + 1 :]))
        for axis in range(axes)
    ]


def _moments(image: Floats, cells: Labels, where: Mask, count: int) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Return the mean and the standard deviation of some of each cell's pixels, and how many these are."""
    numbers, values = cells[where], image[where].astype(np.float64)
    pixels = np.bincount(numbers, minlength=count)
    many = np.maximum(pixels, 1)
    mean = np.bincount(numbers, weights=values, minlength=count) / many
    square = np.bincount(numbers, weights=values**2, minlength=count) / many
    return mean.astype(np.float32), np.sqrt(np.maximum(square - mean**2, 0)).astype(np.float32), pixels


def _tidy(moved: Labels, before: Labels, areas: npt.NDArray[np.int64], clear: npt.NDArray[np.bool_]) -> Labels:
    """Return cells in one piece, without spurs and holes."""
    opened = _opened(moved)
    keep = ~clear | (areas <= THIN)
    moved = np.where(keep[moved], moved, opened)
    pieces = components(moved, connectivity=1)
    sizes = np.bincount(pieces.ravel())
    piece_cell = np.zeros(len(sizes), np.int64)
    piece_cell[pieces] = moved
    sizes[piece_cell == 0] = 0
    order = np.lexsort((-np.arange(len(sizes)), sizes))  # the largest, of equal ones the first, comes last
    largest = np.zeros(len(areas), np.int64)
    largest[piece_cell[order]] = order
    moved = np.where((largest[moved] == pieces) | ~clear[moved], moved, 0)
    lost = np.bincount(moved.ravel(), minlength=len(areas)) < LEAST_SHARE * areas
    lost[0] = False
    moved = np.where(lost[moved], 0, moved)
    moved = np.where(lost[before] & (moved == 0), before, moved)
    for number, box in enumerate(ndimage.find_objects(moved), start=1):
        if box is not None and clear[number]:
            part = moved[box]
            part[ndimage.binary_fill_holes(part == number) & (part == 0)] = number
    return np.asarray(moved, np.int32)


def _opened(labels: Labels) -> Labels:
    """Cut off what is one or two pixels thin: a morphological opening of each cell with a cross of three pixels."""
    edge = _edges(labels)
    kept = np.where(edge, 0, labels)
    for one, other in _neighbours(labels.ndim):
        for here, there in ((one, other), (other, one)):
            same = (labels[here] == labels[there]) & ~edge[there]
            kept[here] = np.where(same, labels[here], kept[here])
    return np.asarray(kept, np.int32)


def _overlaps(true: Labels, found: Labels) -> dict[tuple[int, int], float]:
    """Return the IoU of each labelled cell with each found one that it shares a pixel with, by their numbers."""
    labelled = true > 0
    ids, areas = np.unique(true[labelled], return_counts=True)
    area_found = np.bincount(found.ravel())
    codes, shared = np.unique(
        np.searchsorted(ids, true[labelled]) * np.int64(len(area_found)) + found[labelled], return_counts=True
    )
    one, other = np.divmod(codes, len(area_found))
    ious = shared / (areas[one] + area_found[other] - shared)
    return {(int(ids[a]), int(b)): float(iou) for a, b, iou in zip(one, other, ious, strict=True) if b > 0}
