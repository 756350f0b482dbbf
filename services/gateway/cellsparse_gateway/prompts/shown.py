"""What a prompt shows, as pixels of the window, and what it forbids a mask."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_gateway.prompts.thresholds import around
from cellsparse_gateway.prompts.types import Box, Mask, Prompt

Pixel = tuple[int, int]
"""Row and column."""


WIDE = 0.6
"""Share of a box that the rectangle around its cell should have at least."""


@dataclass(frozen=True)
class Shown:
    """The pixels of a prompt that lie in its window."""

    positive: tuple[Pixel, ...]
    """Pixels of the cell, the first click first; the middle of the box if there are no others."""
    negative: tuple[Pixel, ...]
    """Pixels of other things. A pixel that is shown as both is negative."""
    box: tuple[slice, slice] | None
    """Rows and columns of the box; None without one."""
    from_box: bool = False
    """Whether the positive pixel is only the middle of the box."""

    def allow(self, mask: Mask) -> Mask:
        """Return the part of a mask around the first positive pixel within the box and without negative pixels.

        A mask that holds a negative pixel loses everything that is nearer to one than to the positive ones.
        """
        if self.box:
            inside = np.zeros_like(mask)
            inside[self.box] = mask[self.box]
            mask = inside
        if any(mask[pixel] for pixel in self.negative):
            part = self._nearer(mask)
            mask = part.copy()
            for pixel in self.negative:
                mask[pixel] = False
        return around(mask, *self.positive[0])

    def surroundings(self, reach: float, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns around all positive pixels and the box, by `reach` pixels around each."""
        places = np.array(self.positive)
        low, high = places.min(0) - int(np.ceil(reach)), places.max(0) + int(np.ceil(reach)) + 1
        if self.box:
            margin = int(np.ceil(0.2 * reach))
            low = np.minimum(low, [side.start - margin for side in self.box])
            high = np.maximum(high, [side.stop + margin for side in self.box])
        return slice(max(0, int(low[0])), min(height, int(high[0]))), slice(
            max(0, int(low[1])), min(width, int(high[1]))
        )

    def seen_from(self, rows: slice, columns: slice) -> "Shown":
        """Return the same in a window that holds all positive pixels."""
        box = self.box and (_moved(self.box[0], rows.start), _moved(self.box[1], columns.start))
        moved = [[(y - rows.start, x - columns.start) for y, x in pixels] for pixels in (self.positive, self.negative)]
        height, width = rows.stop - rows.start, columns.stop - columns.start
        inside = tuple((y, x) for y, x in moved[1] if 0 <= y < height and 0 <= x < width)
        return Shown(tuple(moved[0]), inside, box, self.from_box)

    def shrunk(self, factor: int) -> "Shown":
        """Return the same on a grid of pixels `factor` times as large; where signs collide, positive wins."""
        positive = dict.fromkeys((y // factor, x // factor) for y, x in self.positive)
        negative = dict.fromkeys((y // factor, x // factor) for y, x in self.negative)
        box = self.box and (_shrunk(self.box[0], factor), _shrunk(self.box[1], factor))
        return Shown(tuple(positive), tuple(pixel for pixel in negative if pixel not in positive), box, self.from_box)

    def apart(self, count: int) -> list[Pixel]:
        """Return up to `count` positive pixels: the first, and then each time the one farthest from those chosen."""
        places = np.array(self.positive, np.float64)
        chosen = [0]
        distance = np.hypot(*(places - places[0]).T)
        while len(chosen) < count and distance.max() > 0:
            chosen.append(int(distance.argmax()))
            distance = np.minimum(distance, np.hypot(*(places - places[chosen[-1]]).T))
        return [self.positive[index] for index in chosen]

    def held(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return the share of the positive pixels that each mask (N, Y, X) holds."""
        rows, columns = np.transpose(self.positive)
        result: npt.NDArray[np.float64] = masks[:, rows, columns].mean(1)
        return result

    def filled(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return how well each mask (N, Y, X) fills the box, 0 to 1: a box that a person draws is somewhat wide."""
        assert self.box is not None
        spans = [masks.any(3 - axis).sum(1) / max(1, side.stop - side.start) for axis, side in enumerate(self.box, 1)]
        result: npt.NDArray[np.float64] = np.minimum(spans[0] * spans[1] / WIDE, 1.0)
        return result

    def ellipse(self, shape: tuple[int, ...]) -> Mask:
        """Return the ellipse that touches the box's sides."""
        assert self.box is not None
        distance = np.zeros(shape)
        for axis, side in enumerate(self.box):
            places = np.arange(shape[axis]) + 0.5
            half = max(0.5, (side.stop - side.start) / 2)
            part = ((places - (side.start + side.stop) / 2) / half) ** 2
            distance = distance + (part[:, None] if axis == 0 else part[None])
        result: Mask = distance <= 1
        return result

    def _nearer(self, mask: Mask) -> Mask:
        distances = []
        for pixels in (self.positive, self.negative):
            others = np.ones_like(mask)
            others[tuple(np.transpose(pixels))] = False
            distances.append(ndimage.distance_transform_edt(others))
        result: Mask = mask & (distances[0] <= distances[1])
        return result


def show(prompt: Prompt, height: int, width: int) -> Shown | None:
    """Return the pixels of a prompt; None if it shows no pixel of a cell in the window."""
    places = [(point.x, point.y, point.positive) for point in prompt.points]
    places += [(x, y, True) for x, y in _line(prompt.scribble)]
    box = _rectangle(prompt.box, height, width) if prompt.box else None
    from_box = bool(prompt.box) and not any(positive for _, _, positive in places)
    if prompt.box and from_box:
        places.append(((prompt.box.left + prompt.box.right) / 2, (prompt.box.top + prompt.box.bottom) / 2, True))
    pixels = [((int(y), int(x)), positive) for x, y, positive in places if 0 <= x < width and 0 <= y < height]
    negative = dict.fromkeys(pixel for pixel, positive in pixels if not positive)
    wanted = dict.fromkeys(pixel for pixel, positive in pixels if positive and pixel not in negative)
    if box:
        rows, columns = box
        wanted = {(y, x): None for y, x in wanted if rows.start <= y < rows.stop and columns.start <= x < columns.stop}
    return Shown(tuple(wanted), tuple(negative), box, from_box) if wanted else None


def _rectangle(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Return the pixels that a box touches."""
    rows = slice(max(0, int(np.floor(box.top))), min(height, int(np.ceil(box.bottom))))
    columns = slice(max(0, int(np.floor(box.left))), min(width, int(np.ceil(box.right))))
    return rows, columns


def _moved(side: slice, by: int) -> slice:
    return slice(side.start - by, side.stop - by)


def _shrunk(side: slice, factor: int) -> slice:
    return slice(side.start // factor, -(-side.stop // factor))


def _line(corners: tuple[tuple[float, float], ...]) -> list[tuple[float, float]]:
    """Return points along a line, at most half a pixel apart."""
    if len(corners) == 1:
        return list(corners)
    points = []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        steps = 2 * int(np.ceil(max(abs(x1 - x0), abs(y1 - y0), 1)))
        points += [(x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(steps + 1)]
    return points
