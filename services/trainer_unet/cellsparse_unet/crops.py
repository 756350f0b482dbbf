"""Crops around labelled pixels, augmented, never supervised outside the image."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.imaging.types import GrayImage
from cellsparse_unet.config import Config
from cellsparse_unet.targets import BACKGROUND, IGNORED

TRIES = 4
"""Random crops tried before one without augmentation, which always holds its labelled pixel."""


def crop_at(
    image: GrayImage, classes: npt.NDArray[np.int8], anchor: int, config: Config, rng: np.random.Generator
) -> tuple[GrayImage, npt.NDArray[np.int8]]:
    """Draw one augmented crop that holds a labelled pixel.

    Pixels from outside the image are mirrored in the image and -1 in the classes. Stacks are turned in their planes;
    their depth changes as much less than their width as planes are further apart than pixels.

    Args:
        image: Axes YX or ZYX; may be smaller than the crop.
        classes: As in `data.Prepared`.
        anchor: Flat index of the labelled pixel to draw around.
        config: Crop size and strength of augmentation.
        rng: Random numbers.

    Returns:
        Image (float32 YX or ZYX) and classes (int8), both of the crop's size.
    """
    size, depth = config.plan.crop_size, config.plan.crop_depth
    shape = (size, size) if depth is None else (depth, size, size)
    pixel = np.array(np.unravel_index(anchor, image.shape), float)
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
    moved = ndimage.affine_transform(image, matrix, pixel - matrix @ at, shape, order=1, mode="reflect")
    return _contrasted(moved, config.contrast, rng), taken


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


def _contrasted(image: GrayImage, strength: float, rng: np.random.Generator) -> GrayImage:
    """Stretch intensities around their mean by a factor of 1 - strength to 1 + strength."""
    mean = image.mean()
    stretched = mean + (image - mean) * rng.uniform(1 - strength, 1 + strength)
    return np.asarray(stretched, np.float32)
