"""Turning shapes drawn on the planes of a stack into a label image."""

from collections.abc import Sequence

import numpy as np

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.filling import Budget
from cellsparse_common.imaging.polygons import Drawing, Skipped, draw_plane, refuse_empty
from cellsparse_common.imaging.shapes import Shape


def draw_stack(shapes: Sequence[Shape], size: tuple[int, int, int], field: str) -> Drawing:
    """Draw shapes into the planes of a label image; in each plane as `polygons.draw` does.

    Shapes of the same number are one cell in all its planes; one without a number is a cell of its own. Cells are
    numbered 1, 2, ...: first those with a number in the order of these, then the others in their order.

    Args:
        shapes: What to draw.
        size: (planes, height, width) of the image.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: A shape says no plane, lies outside the stack, two of a plane have the same number, or no
            shape is left that marks a cell or background.
        ResourceExhausted: The shapes are too many or too large together.
    """
    by_plane: dict[int, list[Shape]] = {}
    skipped = [Skipped(name=each.name, why=each.skipped) for each in shapes if each.skipped]
    for each in shapes:
        if not each.skipped:
            by_plane.setdefault(_plane_of(each, size[0], field), []).append(each)
    label = np.full(size, -1, np.int32)
    whole = (size[0] * size[1], size[2])
    of_regions, of_drawing = Budget.of(whole, field), Budget.of(whole, field)
    drawn: dict[int, list[Shape]] = {}
    for plane, found in sorted(by_plane.items()):
        label[plane], left_out, drawn[plane] = draw_plane(found, size[1:], field, of_regions, of_drawing)
        _refuse_repeated(drawn[plane], plane, field)
        skipped += left_out
    refuse_empty(skipped, len(shapes), field)
    numbers = _numbers(shapes, {id(each) for cells in drawn.values() for each in cells})
    for plane, cells in drawn.items():
        table = np.array([0, *(numbers[_key(each)] for each in cells), -1], np.int32)  # the last is for -1
        label[plane] = table[label[plane]]
    return Drawing(label=label, skipped=skipped)


def _plane_of(each: Shape, planes: int, field: str) -> int:
    if each.plane is None:
        raise InvalidArgument(
            f"In the {field}, {each.name} does not say its plane, and its image is a stack of {planes} planes; in "
            "ImageJ, set the position of each ROI (ROI Manager, Properties) and save them again.",
            field,
        )
    if not 0 <= each.plane < planes:
        raise InvalidArgument(
            f"In the {field}, {each.name} is on plane {each.plane} (from 0), and its image is a stack of {planes} "
            "planes.",
            field,
        )
    return each.plane


def _key(each: Shape) -> tuple[int, int]:
    """Return what all shapes of a cell share, in the order of cells."""
    return (0, each.number) if each.number is not None else (1, id(each))


def _numbers(shapes: Sequence[Shape], drawn: set[int]) -> dict[tuple[int, int], int]:
    """Return the numbers of cells, from 1."""
    kept = [each for each in shapes if id(each) in drawn]
    numbered = sorted({_key(each) for each in kept if each.number is not None})
    others = [_key(each) for each in kept if each.number is None]
    return {key: at for at, key in enumerate([*numbered, *others], 1)}


def _refuse_repeated(cells: Sequence[Shape], plane: int, field: str) -> None:
    first: dict[int, Shape] = {}
    for each in cells:
        if each.number is None:
            continue
        if each.number in first:
            raise InvalidArgument(
                f"In the {field}, {first[each.number].name} and {each.name} are both called {each.number} on plane "
                f"{plane} (from 0); give each cell a name of its own, which it keeps in all planes.",
                field,
            )
        first[each.number] = each
