"""Prompts and whole images as plain arrays, for callers that hold all pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.classical.whole import segment_all
from cellsparse_gateway.prompts.classical import Classical
from cellsparse_gateway.prompts.types import Box, Point, Prompt, Prompter, Proposal

__all__ = ["prompt_array", "segment_all"]


def prompt_array(
    image: npt.NDArray[Any],
    points: Sequence[tuple[float, float, bool]] = (),
    box: tuple[float, float, float, float] | None = None,
    *,
    scribble: Sequence[tuple[float, float]] = (),
    diameter: float | None = None,
    prompter: Prompter | None = None,
) -> list[Proposal]:
    """Return proposals for the cell that points, a box or a scribble show, in ascending order of area.

    Args:
        image: YX or YXC.
        points: x, y, and whether the point belongs to the cell.
        box: Left, top, right and bottom edge.
        scribble: Corners (x, y) of a line through the cell.
        diameter: Typical diameter of a cell in pixels; None: estimated from the image.
        prompter: Who proposes; None: the classical one.

    Returns:
        `types.best` gives the index of the one to show first. Alone and empty if no cell was found.

    Raises:
        ValueError: The image has no pixel or other axes, or a coordinate is not finite.
    """
    numbers = (
        [value for x, y, _ in points for value in (x, y)] + list(box or ()) + [v for pair in scribble for v in pair]
    )
    if not np.isfinite(numbers).all():
        raise ValueError("a coordinate of a prompt is not finite")
    prompt = Prompt(
        image=image,
        points=tuple(Point(x=x, y=y, positive=positive) for x, y, positive in points),
        box=Box(
            left=min(box[0], box[2]), top=min(box[1], box[3]), right=max(box[0], box[2]), bottom=max(box[1], box[3])
        )
        if box
        else None,
        scribble=tuple(scribble),
        diameter=diameter,
    )
    return (prompter or Classical()).propose(prompt)
