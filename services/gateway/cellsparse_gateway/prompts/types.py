"""What every prompter takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

AUTO = "auto"
"""The method by which several prompters are asked one after the other."""
Mask = npt.NDArray[np.bool_]
Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A click, in pixels of the window: the pixel of column 3 reaches from x = 3 up to x = 4."""

    x: float
    y: float
    positive: bool = True
    """Whether the pixel belongs to the cell; a negative point does not."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle that holds the cell, in pixels of the window; the right and lower edges are outside."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a person showed, and the pixels around it."""

    image: npt.NDArray[Any]
    """The window: YX, or YXC with one channel or more, of any integer or floating point type."""
    points: tuple[Point, ...] = ()
    """Clicks. Those outside the window are left out."""
    box: Box | None = None
    """A box around the cell: no proposal leaves it."""
    scribble: tuple[tuple[float, float], ...] = ()
    """Corners (x, y) of a line through the cell."""
    diameter: float | None = None
    """Typical diameter of the image's cells in pixels; None: estimated from the window."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A mask for the cell, cut to its bounding rectangle."""

    mask: Mask
    """Pixels (YX) of the cell; of size 0 x 0 if no cell was found."""
    x: int = 0
    """Left edge of the mask in the window, pixels."""
    y: int = 0
    """Upper edge of the mask in the window, pixels."""
    quality: float
    """The prompter's own estimate of the IoU with what was meant, 0 to 1; of a predicted cell how sure its model is."""
    level: int = 0
    """Place beside the proposal shown first, which is 0: negative ones are smaller, positive ones larger."""


NOTHING = Proposal(mask=np.zeros((0, 0), np.bool_), quality=0.0)


class Prompter(Protocol):
    """Finds the cell that a prompt means."""

    @property
    def name(self) -> str:
        """As the REST API spells it."""
        ...

    @property
    def title(self) -> str:
        """For people."""
        ...

    @property
    def licence(self) -> str:
        """Licence of the weights; empty if there are none."""
        ...

    def propose(self, prompt: Prompt) -> list[Proposal]:
        """Return proposals in ascending order of area, or `NOTHING` alone."""
        ...


def best(proposals: Sequence[Proposal]) -> int:
    """Return the index of the proposal to show first."""
    return next((index for index, proposal in enumerate(proposals) if proposal.level == 0), 0)


def ordered(masks: Sequence[tuple[Mask, float]], *, x: int = 0, y: int = 0) -> list[Proposal]:
    """Make proposals of masks and qualities: ascending by area, level 0 for the first of those with most quality.

    Args:
        masks: Masks (YX, all of the same shape) with their qualities; empty and repeated ones are left out.
        x: Column of the masks' left edge in the window.
        y: Row of the masks' upper edge in the window.
    """
    unique = {mask.tobytes(): (mask, quality) for mask, quality in reversed(masks) if mask.any()}
    found = sorted(unique.values(), key=lambda pair: int(pair[0].sum()))
    if not found:
        return [NOTHING]
    first = max(range(len(found)), key=lambda index: found[index][1])
    return [_cut(mask, x, y, quality, index - first) for index, (mask, quality) in enumerate(found)]


def _cut(mask: Mask, x: int, y: int, quality: float, level: int) -> Proposal:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    return Proposal(mask=cut, x=x + int(columns[0]), y=y + int(rows[0]), quality=float(quality), level=level)
