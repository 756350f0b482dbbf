"""Crops around labelled pixels, augmented, never supervised outside the image."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_torch.windows import Window
from cellsparse_trainer.data.colours import draw_colours, shift_colours
from cellsparse_unet.config import Config
from cellsparse_unet.targets import BACKGROUND, IGNORED

TRIES = 4
"""Random crops tried before one without augmentation, which always holds its labelled pixel."""


def crop_at(
    image: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int8],
    anchor: int,
    config: Config,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Draw one augmented crop that holds a labelled pixel.

    Pixels from outside the image are mirrored in the image and -1 in the classes. Stacks are turned in their planes;
    their depth changes as much less than their width as planes are further apart than pixels.

    Args:
        image: Axes YX or ZYX, or YXC or ZYXC; may be smaller than the crop.
        classes: As in `data.Prepared`.
        anchor: Flat index of the labelled pixel to draw around.
        config: Crop size and strength of augmentation.
        rng: Random numbers.

    Returns:
        Image (float32, axes as given) and classes (int8, without channels), both of the crop's size.
    """
    matrix, offset, taken = _place(classes, anchor, config, rng)

    def move(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        moved = ndimage.affine_transform(plane, matrix, offset, taken.shape, order=1, mode="reflect")
        return np.asarray(moved, np.float32)

    if image.ndim == classes.ndim:
        return _contrasted(move(image), _contrast(config, rng)), taken
    moved = np.stack([move(image[..., channel]) for channel in range(image.shape[-1])], axis=-1)
    moved = _contrasted(moved, _contrast(config, rng), tuple(range(classes.ndim)))
    return shift_colours(moved, config.plan.colour_shift, rng), taken


@dataclass(frozen=True, kw_only=True)
class UncutCrop:
    """A crop whose brightness the device takes from its window."""

    classes: npt.NDArray[np.int8]
    """As `crop_at` returns them."""
    window: Window
    """Planes: the image's channels, mirrored beyond the image."""
    contrast: float
    """Factor by which intensities are stretched around each channel's mean."""


def window_at(
    image: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int8],
    anchor: int,
    config: Config,
    rng: np.random.Generator,
) -> UncutCrop:
    """Draw the crop that `crop_at` draws; arguments are the same."""
    matrix, offset, taken = _place(classes, anchor, config, rng)
    contrast = _contrast(config, rng)
    channels = image[np.newaxis] if image.ndim == classes.ndim else np.moveaxis(image, -1, 0)
    shift = config.plan.colour_shift if image.ndim > classes.ndim else 0.0
    gain, add = draw_colours(len(channels), shift, rng)
    planes, first = _mirrored_window(channels, matrix, offset, taken.shape)
    window = Window(planes=planes, matrix=np.column_stack([matrix, offset - first]), gain=gain, shift=add)
    return UncutCrop(classes=taken, window=window, contrast=contrast)


def _mirrored_window(
    channels: npt.NDArray[np.float32],
    matrix: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64],
    shape: tuple[int, ...],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the part of an image (C, ...) that a crop of a shape shows, and where along each axis it begins."""
    corners = np.array(list(itertools.product(*[(0, length - 1) for length in shape]))).T
    points = matrix @ corners + offset[:, None]
    first, last = np.floor(points.min(1)).astype(int), np.ceil(points.max(1)).astype(int)
    inside = tuple(
        _mirrored(np.arange(a, b + 1), length) for a, b, length in zip(first, last, channels.shape[1:], strict=True)
    )
    return np.stack([plane[np.ix_(*inside)] for plane in channels]), first


def _mirrored(at: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Return which of an image's pixels lie at positions along an axis, mirrored at its ends."""
    turned = at % (2 * length)
    return np.minimum(turned, 2 * length - 1 - turned)


def _contrast(config: Config, rng: np.random.Generator) -> float:
    return float(rng.uniform(1 - config.contrast, 1 + config.contrast))


def _place(
    classes: npt.NDArray[np.int8], anchor: int, config: Config, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int8]]:
    """Draw where a crop lies: matrix and offset of the map from it to the image, and its classes."""
    size, depth = config.plan.crop_size, config.plan.crop_depth
    shape = (size, size) if depth is None else (depth, size, size)
    pixel = np.array(np.unravel_index(anchor, classes.shape), float)
    at = rng.integers(0, size, 2) if config.spread else rng.integers(size // 4, size - size // 4, 2)
    if depth is not None:
        plane = rng.integers(0, depth) if config.spread else rng.integers(depth // 4, depth - depth // 4)
        at = np.array([plane, *at])
    for _ in range(TRIES):
        matrix = _augmentation(config, rng)
        taken = _take(classes, matrix, pixel, at, shape)
        if (taken >= BACKGROUND).any():
            break
    else:
        matrix = np.eye(config.dims)  # the anchor itself is then a pixel of the crop
        taken = _take(classes, matrix, pixel, at, shape)
    return matrix, pixel - matrix @ at, taken


def _augmentation(config: Config, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return where a crop's pixels come from, relative to its anchor: turned, scaled and mirrored."""
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
    at: npt.NDArray[np.int64],
    shape: tuple[int, ...],
) -> npt.NDArray[np.int8]:
    """Take the nearest pixels, such that the image's `pixel` lies `at` a crop's; -1 outside the image."""
    every = np.indices(shape).reshape(len(shape), -1)
    source = np.rint(matrix @ (every - at[:, None]) + pixel[:, None]).astype(int)
    inside = ((source >= 0) & (source < np.reshape(classes.shape, (-1, 1)))).all(axis=0)
    out = np.full(every.shape[1], IGNORED, np.int8)
    out[inside] = classes[tuple(source[:, inside])]
    return out.reshape(shape)


def _contrasted(
    image: npt.NDArray[np.float32], factor: float, axes: tuple[int, ...] | None = None
) -> npt.NDArray[np.float32]:
    """Stretch intensities around their mean, over all or some axes, by a factor."""
    mean = image.mean(axis=axes)
    stretched = mean + (image - mean) * factor
    return np.asarray(stretched, np.float32)
