"""Prompts in pixels of a whole image, and the windows of its levels that they need."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.prompts.choose import AUTO
from cellsparse_gateway.prompts.scale import grown
from cellsparse_gateway.prompts.types import Box, Point, Prompt, Proposal
from cellsparse_proto.v1 import project_pb2


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt on an image."""

    method: str = AUTO
    """One of `choose.METHODS`."""
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
