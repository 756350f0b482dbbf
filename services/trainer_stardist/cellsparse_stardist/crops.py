"""Windows of an image and its labels, augmented: pure functions of their arguments."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.images import brightness
from cellsparse_common.imaging.types import Floats, Labels
from cellsparse_stardist.targets import OUTSIDE, middle_of
from cellsparse_trainer.data.background import LIKELY, BackgroundModel
from cellsparse_trainer.data.colours import shift_colours


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A window of an image and the part of its label image that the targets need."""

    image: Floats
    """Axes YX or ZYX, with several channels YXC or ZYXC, the crop's size; reflected beyond the image."""
    label: Labels
    """Axes as the image's without channels, larger by 2 * margin, the window in the middle; `OUTSIDE` beyond the
    image."""
    margin: tuple[int, ...]
    """Pixels of context on each side along each axis, multiples of the grid."""


def cut(image: Floats, label: Labels, corner: Sequence[int], size: tuple[int, ...], margin: tuple[int, ...]) -> Crop:
    """Copy a window; what lies outside the image is reflected image and `OUTSIDE` label.

    Args:
        image: Axes YX or ZYX, with several channels YXC or ZYXC.
        label: The image's axes without channels, and size; not changed.
        corner: Where the window starts along each axis; may be negative where the image is smaller than the window.
        size: Pixels of the window along each axis.
        margin: Label context on each side along each axis, pixels.
    """
    window = _window(corner, size, label.shape)
    padding = [*window.padding, *_no_padding(image, label)]
    pixels = np.pad(image[window.inside].astype(np.float32), padding, mode="reflect")
    wide_corner = [c - m for c, m in zip(corner, margin, strict=True)]
    wide = _window(wide_corner, [s + 2 * m for s, m in zip(size, margin, strict=True)], label.shape)
    context = np.pad(label[wide.inside].astype(np.int32), wide.padding, constant_values=OUTSIDE)
    return Crop(image=pixels, label=context, margin=margin)


def mark_likely_background(crop: Crop, model: BackgroundModel | None, share: float, rng: np.random.Generator) -> Crop:
    """Mark a random share of the unlabelled pixels of a window that are likely background as `LIKELY`.

    People label at most the background beside cells; without these pixels the network invents cells everywhere else.
    Only a share is marked, so that likely background does not outnumber the labelled pixels.

    Args:
        crop: Before augmentation.
        model: `SampleIndex.background_model`.
        share: Share of those pixels, 0 to 1.
        rng: Random numbers.
    """
    if share == 0 or model is None:
        return crop
    label = crop.label.copy()
    middle = label[middle_of(label.shape, crop.margin)]
    dark = model.covers(brightness(crop.image, label.ndim))
    middle[(middle == -1) & dark & (rng.random(middle.shape) < share)] = LIKELY
    return Crop(image=crop.image, label=label, margin=crop.margin)


def augment(crop: Crop, rng: np.random.Generator, colour_shift: float = 0.0) -> Crop:
    """Turn by a multiple of 90 degrees, flip, scale and shift the intensity, add noise, as StarDist's examples do.

    Stacks are turned in their planes only, for z is another axis than the others, and flipped along it, too.

    Args:
        crop: The crop.
        rng: Random numbers.
        colour_shift: How far the brightness of each of several channels changes by itself, 0 to 1.
    """
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    y, x = crop.label.ndim - 2, crop.label.ndim - 1  # channels are last
    image, label = np.rot90(crop.image, turns, axes=(y, x)), np.rot90(crop.label, turns, axes=(y, x))
    if flip:
        image, label = np.flip(image, x), np.flip(label, x)
    if label.ndim == 3 and rng.integers(2):
        image, label = image[::-1], label[::-1]
    image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
    image = image + 0.02 * rng.uniform() * rng.standard_normal(image.shape)
    if image.ndim > label.ndim:
        image = shift_colours(image, colour_shift, rng)
    return Crop(image=image.astype(np.float32), label=np.ascontiguousarray(label), margin=crop.margin)


def rescaled(crop: Crop, factor: float, size: tuple[int, ...], grid: Sequence[int]) -> Crop:
    """Scale a crop in its last two axes about its middle.

    Args:
        crop: As large as the result covers, or larger.
        factor: Pixels of the result per pixel of the crop, above 0.
        size: Pixels of the result's image along each axis.
        grid: Pixels per grid point along each axis.

    Returns:
        A crop of that size; the image interpolated linearly, the labels nearest.
    """
    margin = tuple(
        m if axis < len(size) - 2 else -(-math.ceil(m * factor) // g) * g
        for axis, (m, g) in enumerate(zip(crop.margin, grid, strict=True))
    )
    image, label = crop.image, crop.label
    for axis in (-2, -1):
        own = label.ndim + axis
        image = _interpolated(image, own, _positions(image.shape[own], size[axis], factor))
        wide = size[axis] + 2 * margin[axis]
        nearest = np.rint(_positions(label.shape[axis], wide, factor)).astype(int)
        inside = (nearest >= 0) & (nearest < label.shape[axis])
        taken = np.take(label, np.clip(nearest, 0, label.shape[axis] - 1), axis=axis)
        label = np.where(inside[(slice(None), *[np.newaxis] * (-1 - axis))], taken, OUTSIDE)
    return Crop(image=image, label=label, margin=margin)


def _positions(length: int, wanted: int, factor: float) -> npt.NDArray[np.float64]:
    """Return where pixels of a scaled axis lie on the axis, both with the same middle."""
    return (np.arange(wanted) - (wanted - 1) / 2) / factor + (length - 1) / 2


def _interpolated(image: Floats, axis: int, at: npt.NDArray[np.float64]) -> Floats:
    at = np.clip(at, 0, image.shape[axis] - 1)
    low = np.minimum(at.astype(int), image.shape[axis] - 2)
    shape = [1] * image.ndim
    shape[axis] = -1
    weight = (at - low).astype(np.float32).reshape(shape)
    return np.asarray(np.take(image, low, axis) * (1 - weight) + np.take(image, low + 1, axis) * weight, np.float32)


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
    window = crop.label[middle_of(crop.label.shape, crop.margin)]
    if (window[tuple(slice(None, None, step) for step in grid)] >= 0).any():
        return crop
    away = [int(n) % step for n, step in zip(np.argwhere(window >= 0)[0], grid, strict=True)]
    rest, padding = tuple(slice(n, None) for n in away), [(0, n) for n in away]
    return Crop(
        image=np.pad(crop.image[rest], [*padding, *_no_padding(crop.image, crop.label)], mode="reflect"),
        label=np.pad(crop.label[rest], padding, constant_values=OUTSIDE),
        margin=crop.margin,
    )


def _no_padding(image: Floats, label: Labels) -> list[tuple[int, int]]:
    """Return the padding along the axis of channels, if there is one."""
    return [(0, 0)] * (image.ndim - label.ndim)


@dataclass(frozen=True)
class _Window:
    inside: tuple[slice, ...]
    padding: list[tuple[int, int]]


def _window(corner: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> _Window:
    starts = [max(c, 0) for c in corner]
    stops = [min(c + s, n) for c, s, n in zip(corner, size, shape, strict=True)]
    padding = [(b - c, c + s - e) for c, s, b, e in zip(corner, size, starts, stops, strict=True)]
    return _Window(tuple(slice(b, e) for b, e in zip(starts, stops, strict=True)), padding)
