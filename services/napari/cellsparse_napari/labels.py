"""From a napari labels layer to the labels of a dataset.

In a labels layer 0 means "nothing drawn". In a dataset -1 is not labelled, 0 background and n > 0 cell n.
"""

from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse.errors import InvalidArgument
from cellsparse_common.imaging.types import Labels, Mask

NOT_LABELLED = -1


class Background(StrEnum):
    """Where the user says that there is no cell."""

    NOT_MARKED = "not marked"
    """Nowhere: what is not drawn on is ignored."""
    FIRST_LABEL = "label 1"
    """Where label 1 is drawn; cells are numbered from 2."""
    OTHER_LAYER = "another layer"
    """Where anything is drawn in a second labels layer."""
    ZERO = "0"
    """Wherever no cell is drawn: every cell of the image is labelled."""


TITLES = {
    Background.NOT_MARKED: "Not marked",
    Background.OTHER_LAYER: "Drawn in another labels layer",
    Background.FIRST_LABEL: "Drawn as label 1",
    Background.ZERO: "0 is background",
}
"""What each choice is called in the widget, in the order of the list."""

EXPLANATIONS = {
    Background.NOT_MARKED: "Every number is a cell. Pixels that you did not draw on are ignored, as nobody has said "
    "what they are.",
    Background.OTHER_LAYER: "Every number of the cells' layer is a cell. Whatever is drawn in the second layer is "
    "background. All other pixels are ignored.",
    Background.FIRST_LABEL: "Label 1 is background, every number from 2 is a cell. Pixels that you did not draw on are "
    "ignored.",
    Background.ZERO: "Choose this only if every cell is drawn: all pixels without a number count as background.",
}
"""What each choice means, for the widget."""


def dataset_labels(
    cells: npt.NDArray[np.generic], background: Background, drawn: npt.NDArray[np.generic] | None = None
) -> Labels:
    """Return the labels of a dataset's item.

    Args:
        cells: Numbers of the cells' layer. Numbers below 0 count as nothing drawn.
        background: Where background is.
        drawn: The second layer, of the same size, for `Background.OTHER_LAYER`. A cell wins where both are drawn.

    Raises:
        InvalidArgument: Values that are no label numbers, or no second layer where one is needed.
    """
    numbers = _numbers(cells)
    out: Labels = np.where(numbers > 0, numbers.astype(np.int32), np.int32(NOT_LABELLED))
    if background is Background.FIRST_LABEL:
        out[out == 1] = 0
    elif background is Background.ZERO:
        out[numbers == 0] = 0
    elif background is Background.OTHER_LAYER:
        out[_marked(drawn) & (out == NOT_LABELLED)] = 0
    return out


def count_cells(labels: Labels) -> int:
    """Return how many cells a label image holds."""
    return int(np.count_nonzero(np.unique(labels) > 0))


def describe_missing_cells(background: Background) -> str:
    """Return the sentence for labels without any cell."""
    if background is Background.FIRST_LABEL:
        return (
            "No cell is drawn: label 1 is background, so number the cells from 2, or choose where background is drawn."
        )
    return "No cell is drawn: paint at least one whole cell in the labels layer, each cell with a number of its own."


def _numbers(cells: npt.NDArray[np.generic]) -> npt.NDArray[np.integer[Any]]:
    if cells.dtype.kind not in "biu":
        raise InvalidArgument(f"The labels layer holds values of type {cells.dtype}; allowed: whole numbers.", "labels")
    numbers: npt.NDArray[np.integer[Any]] = cells.astype(np.uint8) if cells.dtype.kind == "b" else np.asarray(cells)
    largest = int(numbers.max(initial=0))
    if largest > np.iinfo(np.int32).max:
        raise InvalidArgument(
            f"The labels layer holds the number {largest}; allowed: up to {np.iinfo(np.int32).max:,}.", "labels"
        )
    return numbers


def _marked(drawn: npt.NDArray[np.generic] | None) -> Mask:
    if drawn is None:
        raise InvalidArgument("Choose the labels layer in which background is drawn, or make a new one.", "background")
    marked: Mask = drawn > np.zeros((), drawn.dtype)
    return marked
