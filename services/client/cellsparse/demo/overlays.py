"""Pictures: a test image, the sparse training labels, the prediction and the true labels."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy import ndimage

from cellsparse.datasets import ItemArrays
from cellsparse_common.imaging.images import normalize, to_gray
from cellsparse_common.imaging.types import GrayImage, Labels

FOUND, WRONG, MISSED, GIVEN, BACKGROUND = "#35d0ff", "#ff5a4f", "#ffb000", "#ffd84d", "#4f8cff"
LARGEST_VIEW = 512
SAME_IOU = 0.5

Colours = dict[int, str]


def write_overlay(path: Path, *, title: str, trained: ItemArrays, test: ItemArrays, predicted: Labels) -> Path:
    """Write one picture of four panels, 1400 pixels wide.

    Args:
        path: PNG file to write.
        title: Heading.
        trained: A training item with its sparse labels.
        test: A test item with its true labels.
        predicted: Labels of axes YX, predicted for the test item.
    """
    figure = Figure(figsize=(14, 4.15), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=15)
    panels = figure.subplots(1, 4)
    window = _window(test.label.shape)
    image, truth, found = _gray(test)[window], test.label[window], predicted[window]
    same = matches(truth, found)
    _show(panels[0], image, "test image")
    of_training = _window(trained.label.shape)
    _show_sparse(panels[1], _gray(trained)[of_training], trained.label[of_training])
    hits = set(same.values())
    right = {cell: FOUND if cell in hits else WRONG for cell in _cells(found)}
    _show(panels[2], image, f"prediction: {len(right)} cells, {len(right) - len(hits)} wrong (red)")
    outline(panels[2], found, right)
    true = {cell: FOUND if cell in same else MISSED for cell in _cells(truth)}
    _show(panels[3], image, f"truth: {len(true)} cells, {len(true) - len(same)} missed (orange)")
    outline(panels[3], truth, true)
    figure.savefig(path)
    return path


def matches(truth: Labels, found: Labels) -> dict[int, int]:
    """Return which predicted cell lies on which true cell, with an IoU above 0.5 (so there is at most one).

    Args:
        truth: Axes YX, -1 not labelled, 0 background, n > 0 cell n.
        found: Axes YX, 0 background, n > 0 cell n.
    """
    both = (truth > 0) & (found > 0)
    pairs, shared = np.unique(np.stack([truth[both], found[both]]), axis=1, return_counts=True)
    of_truth = np.bincount(truth[truth > 0], minlength=1)
    of_found = np.bincount(found[(found > 0) & (truth >= 0)], minlength=1)
    same = {}
    for (a, b), overlap in zip(pairs.T.tolist(), shared.tolist(), strict=True):
        if overlap / (of_truth[a] + of_found[b] - overlap) > SAME_IOU:
            same[a] = b
    return same


def outline(axes: Axes, label: Labels, colours: Colours) -> None:
    """Draw the outlines of cells as smooth lines between pixels."""
    lines: list[npt.NDArray[np.float64]] = []
    shades: list[str] = []
    for cell, box in enumerate(ndimage.find_objects(np.maximum(label, 0)), start=1):
        if box is None:
            continue
        mask = np.pad(label[box] == cell, 1).astype(np.float32)
        for line in contour_generator(z=mask).lines(0.5):
            lines.append(np.asarray(line) + np.array([box[1].start - 1, box[0].start - 1]))
            shades.append(colours[cell])
    axes.add_collection(LineCollection(lines, colors=shades, linewidths=1.4))


def _show(axes: Axes, image: GrayImage, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=10.5)
    axes.set_axis_off()


def _show_sparse(axes: Axes, image: GrayImage, label: Labels) -> None:
    """Show labelled pixels in their colours and dim the rest."""
    shown = np.repeat(image[..., None], 3, axis=2)
    shown[label < 0] *= 0.55
    shown[label == 0] = 0.5 * shown[label == 0] + 0.5 * np.array(_rgb(BACKGROUND))
    cells = _cells(label)
    title = f"trained on: {len(cells)} cells"
    title += ", some background (blue)" if (label == 0).any() else ""
    _show(axes, shown, title)
    outline(axes, label, dict.fromkeys(cells, GIVEN))


def _gray(item: ItemArrays) -> GrayImage:
    """Return the image as one grey plane, with dark cells brightened."""
    return normalize(to_gray(item.image), 1.0, 99.8) ** np.float32(0.75)


def _window(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the centre of a large image, because outlines of thousands of cells are unreadable."""
    starts = [max((size - LARGEST_VIEW) // 2, 0) for size in shape[:2]]
    return slice(starts[0], starts[0] + LARGEST_VIEW), slice(starts[1], starts[1] + LARGEST_VIEW)


def _cells(label: Labels) -> list[int]:
    return [int(cell) for cell in np.unique(label[label > 0])]


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
