"""Images of the demo: the nuclei that ship with stardist, or a folder of the user."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellsparse.errors import InvalidArgument
from cellsparse.folders import read_folder
from cellsparse.items import Item, image_bytes
from cellsparse_common.config.limits import LARGEST_MAX_PIXELS
from cellsparse_common.imaging.images import decode_image
from cellsparse_common.imaging.labels import decode_labels

FEWEST_IMAGES = 3
SMALLEST_TILE = 32

Array = npt.NDArray[np.generic]


def demo_items(data: Path | None) -> list[Item]:
    """Return the demo's items with their splits.

    Args:
        data: Folder with images/ and masks/; None for the nuclei of stardist. One or two images are cut into tiles,
            three or more are split 60/20/20.

    Raises:
        InvalidArgument: The folder is not of this kind or holds too little.
    """
    if data is None:
        image, label = stardist_files()
        items = list(_tiles("nuclei", image, label))
    else:
        items = read_folder(data).items
        if len(items) < FEWEST_IMAGES:
            whole = [(item.name, item.image, item.label) for item in items]
            items = [tile for name, image, label in whole for tile in _tiles(name, Path(str(image)), Path(str(label)))]
    for split in ("train", "test"):
        if not any(item.split == split for item in items):
            raise InvalidArgument(f"{data} holds no labelled cell for the {split} split; add images or larger ones.")
    return items


def stardist_files() -> tuple[Path, Path]:
    """Return image and label file of the nuclei that ship with stardist, without importing it.

    Raises:
        InvalidArgument: stardist is not installed here.
    """
    found = importlib.util.find_spec("stardist")
    if found is None or found.origin is None:
        raise InvalidArgument("The demo's image ships with the package stardist, which is not installed; give --data.")
    folder = Path(found.origin).parent / "data" / "images"
    return folder / "img2d.tif", folder / "mask2d.tif"


def cut(height: int, width: int) -> dict[str, list[tuple[slice, slice]]]:
    """Return tiles of an image that do not overlap.

    Two quarters and an eighth are for training, an eighth for validation, a quarter for the test.
    """
    y, x, eighth = height // 2, width // 2, width // 4
    return {
        "train": [
            (slice(0, y), slice(0, x)),
            (slice(0, y), slice(x, width)),
            (slice(y, height), slice(0, eighth)),
        ],
        "val": [(slice(y, height), slice(eighth, x))],
        "test": [(slice(y, height), slice(x, width))],
    }


def _tiles(name: str, image_path: Path, label_path: Path) -> Iterator[Item]:
    image: Array = decode_image(image_bytes(image_path), max_pixels=LARGEST_MAX_PIXELS).array
    height, width = image.shape[:2]
    label = decode_labels(image_bytes(label_path), shape=(height, width), max_pixels=LARGEST_MAX_PIXELS)
    if min(height // 2, width // 4) < SMALLEST_TILE:
        raise InvalidArgument(
            f"{image_path} is {height} x {width} pixels; to be cut into tiles it needs at least "
            f"{2 * SMALLEST_TILE} x {4 * SMALLEST_TILE}."
        )
    for split, windows in cut(height, width).items():
        for index, window in enumerate(windows):
            if (label[window] > 0).any():
                yield Item(name=f"{name}-{split}-{index}", split=split, image=image[window], label=label[window])
