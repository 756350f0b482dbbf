"""Crops around labelled pixels, augmented, never supervised outside the image."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_trainer.data.colours import shift_colours
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

    def move(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(
            ndimage.affine_transform(plane, matrix, pixel - matrix @ at, shape, order=1, mode="reflect"), np.float32
        )

    if image.ndim == classes.ndim:
        return _contrasted(move(image), config.contrast, rng), taken
    moved = np.stack([move(image[..., channel]) for channel in range(image.shape[-1])], axis=-1)
    moved = _contrasted(moved, config.contrast, rng, tuple(range(classes.ndim)))
    return shift_colours(moved, config.plan.colour_shift, rng), taken


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
    image: npt.NDArray[np.float32], strength: float, rng: np.random.Generator, axes: tuple[int, ...] | None = None
) -> npt.NDArray[np.float32]:
    """Stretch intensities around their mean, over all or some axes, by a factor of 1 - strength to 1 + strength."""
    mean = image.mean(axis=axes)
    stretched = mean + (image - mean) * rng.uniform(1 - strength, 1 + strength)
    return np.asarray(stretched, np.float32)
