"""Which drawn shapes are regions that hold others, rather than cells.

QuPath keeps its objects in a hierarchy: an annotation that contains other objects is their parent, such as the
rectangle in which cells were detected. It contains a detection whose centre is inside, and an annotation that is
inside as a whole. The exported list of features no longer says who the parent is, so it is found again here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.filling import Box, Budget, box_of, fill
from cellsparse_common.imaging.shapes import Polygon, Shape
from cellsparse_common.imaging.types import Mask


def find_regions(shapes: Sequence[Shape], size: tuple[int, int], budget: Budget) -> Mapping[int, str]:
    """Return, by its index, why a shape is a region and no cell, as the rest of a sentence.

    Args:
        shapes: What was drawn.
        size: (height, width) of the image.
        budget: Work that may be done.

    Raises:
        ResourceExhausted: Too many large shapes lie in each other.
    """
    labels = [index for index, each in enumerate(shapes) if not each.skipped]
    found: dict[int, str] = {}
    if not any(shapes[index].may_hold for index in labels):
        return found
    bounds = np.array([shapes[index].bounds for index in labels])
    centres = (bounds[:, :2] + bounds[:, 2:]) / 2
    order = np.argsort(centres[:, 0], kind="stable")
    sorted_centres = centres[order]
    for place, index in enumerate(labels):
        if not shapes[index].may_hold or shapes[index].background:
            continue
        x0, y0, x1, y1 = bounds[place]
        # Sorted by x, so that a cell among thousands looks at few others.
        first = np.searchsorted(sorted_centres[:, 0], x0, side="left")
        last = np.searchsorted(sorted_centres[:, 0], x1, side="right")
        heights = sorted_centres[first:last, 1]
        near = np.sort(order[first:last][(heights >= y0) & (heights <= y1)])
        child = _first_inside(shapes, index, [labels[at] for at in near if at != place], size, budget)
        if child is not None:
            found[index] = f"holds {shapes[child].name}, so it is the region around it"
        elif _covers(shapes[index], bounds[place], size, budget):
            found[index] = "covers the whole image, so it is the frame around it"
    return found


def _first_inside(
    shapes: Sequence[Shape], index: int, near: Sequence[int], size: tuple[int, int], budget: Budget
) -> int | None:
    """Return the first of some shapes that lies in another one and is smaller."""
    outer: Mask | None = None
    outer_place: Box | None = None
    for other in near:
        inner, place = _mask(shapes[other].polygons, size, budget)
        if place is None or not inner.any():
            continue
        if outer is None:
            outer, outer_place = _mask(shapes[index].polygons, size, budget)
        if outer_place is None:
            return None
        pixels, shared = int(inner.sum()), _shared(outer, outer_place, inner, place)
        inside = 2 * shared > pixels if shapes[other].detection else shared == pixels
        if inside and int(outer.sum()) > pixels:
            return other
    return None


def _covers(each: Shape, bounds: npt.NDArray[np.float64], size: tuple[int, int], budget: Budget) -> bool:
    """Whether a shape covers every pixel of the image."""
    if (bounds[:2] > 0.5).any() or bounds[2] < size[1] - 0.5 or bounds[3] < size[0] - 0.5:
        return False
    mask, place = _mask(each.polygons, size, budget)
    return place is not None and mask.size == size[0] * size[1] and bool(mask.all())


def _mask(polygons: Sequence[Polygon], size: tuple[int, int], budget: Budget) -> tuple[Mask, Box | None]:
    """Return the pixels of a shape in the smallest box of the image that holds them."""
    boxes = [box for polygon in polygons if (box := box_of(polygon, size)) is not None]
    if not boxes:
        return np.zeros((0, 0), bool), None
    rows, columns = (
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in (0, 1)
    )
    budget.spend(area=(rows.stop - rows.start) * (columns.stop - columns.start))
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
    for polygon in polygons:
        box = box_of(polygon, size)
        if box is not None:
            mask[_within(box, (rows, columns))] |= fill(polygon, box, budget)
    return mask, (rows, columns)


def _within(box: Box, frame: Box) -> Box:
    """Return a box counted from the corner of a larger one."""
    rows, columns = (
        slice(part.start - whole.start, part.stop - whole.start) for part, whole in zip(box, frame, strict=True)
    )
    return rows, columns


def _shared(outer: Mask, outer_box: Box, inner: Mask, inner_box: Box) -> int:
    """Return the number of pixels of `inner` that are in `outer`, too."""
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(outer_box, inner_box, strict=True)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return 0
    both = outer[_within((rows, columns), outer_box)] & inner[_within((rows, columns), inner_box)]
    return int(both.sum())
