"""Images of kinds that no preset was tuned on: made by a generator, the same for the same seed.

Three families: cells that touch in clusters, elongated cells that cross each other's neighbourhood, and round cells
under light that falls off to a fifth across the image.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

FAMILIES = ("touching", "elongated", "uneven")
SIDE = 256
COUNTS = {"train": 16, "val": 4, "test": 12}
MOST_TRIES = 4000


def write(family: str, folder: Path, seed: int = 0) -> Path:
    """Write the family as FOLDER/{train,val,test}/{images,masks}/*.tif, unless it is there, and return the folder.

    Raises:
        ValueError: The family is unknown.
    """
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}; allowed: {', '.join(FAMILIES)}.")
    random = np.random.default_rng([seed, FAMILIES.index(family)])
    for split, count in COUNTS.items():
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, label = picture(family, random)
            tifffile.imwrite(folder / split / "images" / f"{number:02}.tif", image)
            tifffile.imwrite(folder / split / "masks" / f"{number:02}.tif", label.astype(np.uint16))
    return folder


def picture(family: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (uint16, YX) and its label image (int32, YX; 0 background, n cell n)."""
    label = np.zeros((SIDE, SIDE), np.int32)
    light = np.zeros((SIDE, SIDE))
    for inside in _shapes(family, random, label):
        number = label.max() + 1
        label[inside] = number
        depth = ndimage.distance_transform_edt(inside)
        light[inside] = random.uniform(0.4, 1.0) * (0.6 + 0.4 * depth[inside] / depth.max())
    light = ndimage.gaussian_filter(light, 1.2)
    if family == "uneven":
        angle = random.uniform(0, 2 * np.pi)
        y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) - 0.5
        slope = (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2) + 0.5
        light = (light + 0.25) * (0.2 + 0.8 * slope)
    photons = random.poisson(60 * light + 6)
    return (40 * photons + random.normal(400, 20, photons.shape).clip(0)).astype(np.uint16), label


def _shapes(family: str, random: np.random.Generator, label: np.ndarray) -> Iterator[np.ndarray]:
    """Yield masks of new cells, which overlap no cell that is in `label` when they are yielded."""
    wanted = random.integers(*{"touching": (45, 70), "elongated": (25, 40), "uneven": (20, 35)}[family])
    for _ in range(MOST_TRIES):
        if label.max() >= wanted:
            return
        inside = _ellipse(family, random)
        if family == "touching":
            # Close to a cell, or the seed of a new cluster; what would lie on another cell is cut off.
            near = ndimage.binary_dilation(inside, iterations=1) & (label > 0)
            if label.any() and not near.any() and random.random() > 0.1:
                continue
            covered = inside & (label > 0)
            if covered.sum() > 0.15 * inside.sum():
                continue
            inside = _largest(inside & (label == 0))
        elif (ndimage.binary_dilation(inside, iterations=2) & (label > 0)).any():
            continue
        if inside.sum() >= 40:
            yield inside


def _ellipse(family: str, random: np.random.Generator) -> np.ndarray:
    """Return the mask of an ellipse somewhere in the image."""
    centre = random.uniform(0, SIDE, 2)
    if family == "elongated":
        half_length, half_width = random.uniform(16, 32), random.uniform(3.5, 5.5)
    else:
        half_length = random.uniform(8, 14)
        half_width = half_length * random.uniform(0.7, 1.0)
    angle = random.uniform(0, np.pi)
    y, x = np.mgrid[0:SIDE, 0:SIDE] - centre[:, None, None]
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    inside: np.ndarray = (along / half_length) ** 2 + (across / half_width) ** 2 <= 1
    return inside


def _largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    largest: np.ndarray = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return largest
