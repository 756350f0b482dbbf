"""The nuclei that come with the stardist package, which the page's sample project shows, with their true labels."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tifffile


def nuclei_labels() -> np.ndarray:
    """Return the label image: YX, 0 background, n > 0 nucleus n."""
    spec = importlib.util.find_spec("stardist")
    if spec is None:
        pytest.skip("the stardist package, whose nuclei the sample shows, is not installed")
    (folder,) = spec.submodule_search_locations or ()
    return tifffile.imread(Path(folder) / "data" / "images" / "mask2d.tif")


def clear_nuclei(labels: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Return the centres (x, y) of the largest nuclei that stand alone, well inside the image and apart."""
    found: list[tuple[float, float]] = []
    numbers, areas = np.unique(labels[labels > 0], return_counts=True)
    for number in numbers[np.argsort(-areas)]:
        y, x = np.nonzero(labels == number)
        top, bottom, left, right = y.min() - 4, y.max() + 5, x.min() - 4, x.max() + 5
        if top < 0 or left < 0 or bottom > labels.shape[0] or right > labels.shape[1]:
            continue
        around = labels[top:bottom, left:right]
        if np.isin(around, (0, number)).all():
            found.append((float(x.mean()) + 0.5, float(y.mean()) + 0.5))
        if len(found) == count:
            break
    return found


def open_ground(labels: np.ndarray, length: int = 40, height: int = 14) -> tuple[float, float]:
    """Return the left end (x, y) of a level stroke that touches no nucleus."""
    free = np.lib.stride_tricks.sliding_window_view(labels, (height, length)).max(axis=(2, 3)) == 0
    y, x = np.argwhere(free)[len(np.argwhere(free)) // 2]
    return float(x) + height / 2, float(y) + height / 2
