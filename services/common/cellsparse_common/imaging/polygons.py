"""Turning drawn shapes into label images (see `filling` for which pixels a shape has)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.filling import Budget, box_of, fill
from cellsparse_common.imaging.regions import find_regions
from cellsparse_common.imaging.shapes import MAX_VERTICES, Ring, Shape
from cellsparse_common.imaging.types import Labels

__all__ = ["MAX_VERTICES", "Drawing", "Ring", "Shape", "Skipped", "draw", "paint"]

_COVERED = "covers no pixel, or only pixels of cells before it; remove or enlarge it"
_FLAT = "is flat: its outline encloses no area; remove it or draw it again"


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A shape that gave no label."""

    name: str
    """Its name in messages."""
    why: str
    """The rest of a sentence that begins with the name."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A label image, and what was left out of it."""

    label: Labels
    """int32, axes YX: -1 where nothing is drawn, 0 background, n > 0 cell n."""
    skipped: Sequence[Skipped]
    """Shapes that are no labels, in their order."""

    @property
    def notes(self) -> list[str]:
        """Sentences on these shapes, those of the same reason together."""
        names: dict[str, list[str]] = {}
        for each in self.skipped:
            names.setdefault(each.why, []).append(each.name)
        return [f"{_shown(found)} {why}" for why, found in names.items()]


def paint(shapes: Sequence[Shape], size: tuple[int, int], field: str) -> Labels:
    """Return the label image of shapes (see `draw`)."""
    return draw(shapes, size, field).label


def draw(shapes: Sequence[Shape], size: tuple[int, int], field: str) -> Drawing:
    """Draw shapes into a label image.

    Cells are numbered 1, 2, ... in their order. A pixel in several cells belongs to the first of them, a pixel in a
    cell and in background to the cell. Parts outside the image are cut off. Shapes that are regions, are flat, or
    leave no pixel are skipped.

    Args:
        shapes: What to draw.
        size: (height, width) of the image.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: A shape lies outside the image, or no shape is left that marks a cell or background.
        ResourceExhausted: The shapes are too many or too large together.
    """
    label, skipped, _ = draw_plane(shapes, size, field, Budget.of(size, field), Budget.of(size, field))
    refuse_empty(skipped, len(shapes), field)
    return Drawing(label=label, skipped=skipped)


def draw_plane(
    shapes: Sequence[Shape], size: tuple[int, int], field: str, of_regions: Budget, of_drawing: Budget
) -> tuple[Labels, list[Skipped], list[Shape]]:
    """Draw the shapes of one plane (see `draw`).

    Args:
        shapes: What to draw.
        size: (height, width) of the image.
        field: Name of the request's field, for messages.
        of_regions: Work that may be done to find regions.
        of_drawing: Work that may be done to draw.

    Returns:
        The label image, what was skipped, and the shapes of the cells 1, 2, ...

    Raises:
        InvalidArgument: A shape lies outside the image.
        ResourceExhausted: The shapes are too many or too large together.
    """
    shapes = [_without_flat(each) for each in shapes]
    for each in shapes:
        if not each.skipped and _is_outside(each, size):
            raise InvalidArgument(_outside(each, size, field), field)
    regions = find_regions(shapes, size, of_regions)
    label = np.full(size, -1, np.int32)
    cells: list[Shape] = []
    skipped: list[Skipped] = []
    for index, each in enumerate(shapes):
        why = each.skipped or regions.get(index, "")
        if not why:
            value = 0 if each.background else len(cells) + 1
            why = "" if _draw(each, value, label, of_drawing) else _COVERED
            if not each.background and not why:
                cells.append(each)
        if why:
            skipped.append(Skipped(name=each.name, why=why))
    return label, skipped, cells


def refuse_empty(skipped: Sequence[Skipped], count: int, field: str) -> None:
    """Refuse a file of so many shapes none of which is left; the sentence says why the first is not."""
    if skipped and len(skipped) == count:
        first = f"{skipped[0].name} {skipped[0].why}"
        also = f" All its {len(skipped):,} shapes are left out; mark at least one cell." if len(skipped) > 1 else ""
        raise InvalidArgument(f"In the {field}, {first}.{also}", field)


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3:,} more: each" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _without_flat(each: Shape) -> Shape:
    if each.skipped or not each.flat:
        return each
    return Shape(name=each.name, skipped=_FLAT)


def _draw(each: Shape, value: int, label: Labels, budget: Budget) -> bool:
    """Draw one shape, and tell whether it left a pixel."""
    drawn = False
    for polygon in each.polygons:
        box = box_of(polygon, (label.shape[0], label.shape[1]))
        if box is None:
            continue
        inside = fill(polygon, box, budget)
        target = label[box]
        free = inside & ((target < 0) if each.background else (target <= 0) | (target == value))
        target[free] = value
        drawn = drawn or bool(inside.any() if each.background else free.any())
    return drawn


def _is_outside(each: Shape, size: tuple[int, int]) -> bool:
    return all(box_of(polygon, size) is None for polygon in each.polygons)


def _outside(each: Shape, size: tuple[int, int], field: str) -> str:
    """Return the sentence for a shape outside the image."""
    x0, y0, x1, y1 = each.bounds
    return (
        f"In the {field}, {each.name} lies outside the image of {size[0]} x {size[1]} pixels: it spans x {x0:g} to "
        f"{x1:g}, y {y0:g} to {y1:g}; coordinates must be pixels of this image."
    )
