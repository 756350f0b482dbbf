"""Prompts in pixels of a whole image, and the windows of its levels that they need."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.prompts.scale import grown
from cellsparse_gateway.prompts.types import AUTO, Box, Point, Prompt, Proposal
from cellsparse_proto.v1 import project_pb2

REACH = 2.0
"""Pixels around a prompt in a close window, in diameters."""
LONGEST = 1024
"""Longer side of a window, pixels; larger ones are taken from a coarser level."""
SHORTEST = 256
"""Shortest side of a window of the grid, pixels."""
Window = tuple[int, slice, slice]
"""A level, and rows and columns of it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt on an image."""

    method: str = AUTO
    """A prompter's name, or `AUTO`."""
    plane: int = 0
    """Plane of a stack."""
    channel: int | None = None
    """None: all channels, of which the clearest counts."""
    points: tuple[Point, ...] = ()
    """Clicks, in pixels of the image, as the box and the scribble."""
    box: Box | None = None
    scribble: tuple[tuple[float, float], ...] = ()
    diameter: float | None = None
    """None: the median of the annotated cells, else estimated from the pixels around the prompt."""
    layer: str = ""
    """Layer of predictions; empty: all of the image, the newest first."""


def check(asked: Asked, image: "project_pb2.ProjectImage") -> None:
    """Check a prompt against the image.

    Raises:
        InvalidArgument: The image has no such plane or channel, a point or the box lies outside, or nothing is shown.
    """
    if asked.plane >= image.planes:
        raise InvalidArgument(f"The image has no plane {asked.plane}; allowed: 0 to {image.planes - 1}.")
    if asked.channel is not None and asked.channel >= image.channels:
        raise InvalidArgument(f"The image has no channel {asked.channel}; allowed: 0 to {image.channels - 1}.")
    for point in asked.points:
        if not (0 <= point.x < image.width and 0 <= point.y < image.height):
            raise InvalidArgument(
                f"The point ({point.x:g}, {point.y:g}) lies outside the image of {image.width} x {image.height} pixels."
            )
    box = asked.box
    if box and (box.right <= 0 or box.bottom <= 0 or box.left >= image.width or box.top >= image.height):
        raise InvalidArgument(f"The box lies outside the image of {image.width} x {image.height} pixels.")
    if not asked.box and not asked.scribble and not any(point.positive for point in asked.points):
        raise InvalidArgument("The prompt shows no cell: give a positive point, a box or a scribble.")


def extent(asked: Asked, reach: float) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom edge of what shows the cell, by `reach` pixels around."""
    xs = [point.x for point in asked.points if point.positive] + [x for x, _ in asked.scribble]
    ys = [point.y for point in asked.points if point.positive] + [y for _, y in asked.scribble]
    if asked.box:
        xs += [asked.box.left, asked.box.right]
        ys += [asked.box.top, asked.box.bottom]
    return min(xs) - reach, min(ys) - reach, max(xs) + reach, max(ys) + reach


def clipped(
    area: tuple[float, float, float, float], image: "project_pb2.ProjectImage", level: int
) -> tuple[slice, slice]:
    """Return rows and columns of a level that cover an area of the image, at least one of each."""
    sides = []
    for low, high, size in ((area[1], area[3], image.height), (area[0], area[2], image.width)):
        whole = -(-size // 2**level)
        start = min(max(int(np.floor(max(low, 0) / 2**level)), 0), whole - 1)
        sides.append(slice(start, max(start + 1, min(int(np.ceil(min(high, size) / 2**level)), whole))))
    return sides[0], sides[1]


def close_window(asked: Asked, image: "project_pb2.ProjectImage", diameter: float) -> Window:
    """Return the window around a prompt: little around the cell, and the cell in the middle."""
    area = extent(asked, REACH * diameter + 4)
    level = 0
    while level < image.levels - 1 and max(area[2] - area[0], area[3] - area[1]) > LONGEST * 2**level:
        level += 1
    return level, *clipped(area, image, level)


def grid_window(asked: Asked, image: "project_pb2.ProjectImage", diameter: float) -> Window:
    """Return the window of a fixed grid that has a prompt nearest to its middle.

    The windows of a grid overlap by half. Prompts beside each other get the same window, so that what was computed of
    it serves all of them. The side is a power of two, at least four diameters, so that estimates of the diameter that
    differ a little make no other windows.
    """
    left, top, right, bottom = extent(asked, diameter)
    length, side, level = 2 * max(right - left, bottom - top), SHORTEST, 0
    while side < LONGEST and side < length:
        side *= 2
    while level < image.levels - 1 and length > side * 2**level:
        level += 1
    rows = _of_grid((top + bottom) / 2 / 2**level, -(-image.height // 2**level), side)
    columns = _of_grid((left + right) / 2 / 2**level, -(-image.width // 2**level), side)
    return level, rows, columns


def _of_grid(middle: float, whole: int, side: int) -> slice:
    step = side // 2
    last = max(0, -(-(whole - side) // step)) * step
    start = min(max(0, int(np.floor((middle - side / 2) / step + 0.5)) * step), last)
    return slice(start, min(start + side, whole))


def moved(
    asked: Asked,
    pixels: npt.NDArray[Any],
    level: int,
    rows: slice,
    columns: slice,
    diameter: float | None,
) -> Prompt:
    """Return a prompt in a window of a level."""
    scale = 1 / 2**level

    def place(x: float, y: float) -> tuple[float, float]:
        return x * scale - columns.start, y * scale - rows.start

    points = []
    for point in asked.points:
        x, y = place(point.x, point.y)
        points.append(replace(point, x=x, y=y))
    box = None
    if asked.box:
        left, top = place(asked.box.left, asked.box.top)
        right, bottom = place(asked.box.right, asked.box.bottom)
        box = Box(left=left, top=top, right=right, bottom=bottom)
    return Prompt(
        image=pixels,
        points=tuple(points),
        box=box,
        scribble=tuple(place(x, y) for x, y in asked.scribble),
        diameter=diameter and diameter * scale,
    )


def placed(proposal: Proposal, level: int, rows: slice, columns: slice, image: "project_pb2.ProjectImage") -> Proposal:
    """Return a proposal of a window in pixels of the image."""
    if not proposal.mask.size:
        return proposal
    factor = 2**level
    y, x = (rows.start + proposal.y) * factor, (columns.start + proposal.x) * factor
    height, width = (side * factor for side in proposal.mask.shape)
    mask = grown(proposal.mask, factor, (min(height, image.height - y), min(width, image.width - x)))
    return replace(proposal, mask=mask, x=x, y=y)


def cut_off(proposal: Proposal, rows: slice, columns: slice, image: "project_pb2.ProjectImage") -> bool:
    """Whether a proposal ends at an edge of the window that is not the image's."""
    height, width = proposal.mask.shape
    if not height:
        return False
    return bool(
        (proposal.y == 0 and rows.start > 0)
        or (proposal.x == 0 and columns.start > 0)
        or (proposal.y + height == rows.stop - rows.start and rows.stop < image.height)
        or (proposal.x + width == columns.stop - columns.start and columns.stop < image.width)
    )
