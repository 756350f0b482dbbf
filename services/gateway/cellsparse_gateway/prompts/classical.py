"""Proposals from the pixels alone."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cellsparse_gateway.prompts.diameter import estimate_diameter
from cellsparse_gateway.prompts.pixels import bright_cells, finite, smooth
from cellsparse_gateway.prompts.thresholds import around, part_of, threshold_masks
from cellsparse_gateway.prompts.types import NOTHING, Box, Mask, Plane, Point, Prompt, Proposal, ordered

LEVELS = 5
"""Most proposals to choose from."""


@dataclass(frozen=True)
class Classical:
    """Thresholds around the click, split at necks, ranked by their edges and size. It needs no weights."""

    name: str = "classical"
    title: str = "From the pixels"
    licence: str = ""

    def propose(self, prompt: Prompt) -> list[Proposal]:
        """Return up to `LEVELS` proposals in ascending order of area, or `NOTHING` alone.

        Raises:
            ValueError: The image has no pixel or other axes than YX or YXC, or the prompt shows nothing.
        """
        image = finite(prompt.image)
        height, width = image.shape[:2]
        positive, negative = _pixels(prompt, height, width)
        if not positive:
            return [NOTHING]
        diameter = _diameter(prompt)
        row, column = positive[0]
        plane = bright_cells(image, column + 0.5, row + 0.5, diameter)
        masks = [_keep(mask, positive, negative, prompt.box) for mask in candidates(plane, row, column, diameter)]
        ranked = [(mask, rank(plane, mask, positive, diameter)) for mask in masks if mask.any()]
        return ordered(_spread(ranked))


def candidates(plane: Plane, row: int, column: int, diameter: float) -> list[Mask]:
    """Return masks that hold a pixel; none where the pixel is no brighter than its surroundings."""
    reach = int(np.ceil(1.6 * diameter)) + 2
    top, left = max(0, row - reach), max(0, column - reach)
    window = plane[top : row + reach + 1, left : column + reach + 1]
    blurred = smooth(window, max(0.6, 0.05 * diameter))
    near = max(1, round(0.15 * diameter))
    y, x = row - top, column - left
    middle = blurred[max(0, y - near) : y + near + 1, max(0, x - near) : x + near + 1]
    value = max(float(np.median(middle)), float(blurred[y, x]))
    background = float(np.percentile(blurred, 5))
    if not value > background:
        return []
    found = threshold_masks(blurred, y, x, background=background, value=value, depth=0.65 * diameter)
    result = []
    for mask in found:
        whole = np.zeros(plane.shape, np.bool_)
        whole[top : row + reach + 1, left : column + reach + 1] = mask
        result.append(whole)
    return result


def rank(plane: Plane, mask: Mask, positive: list[tuple[int, int]], diameter: float) -> float:
    """Return the expected IoU of a mask, 0 to 1: from the step at its edge, its size, and the clicks it holds."""
    inner = mask & ~ndimage.binary_erosion(mask)
    outer = ndimage.binary_dilation(mask) & ~mask
    spread = float(plane.std())
    step = (float(plane[inner].mean()) - float(plane[outer].mean())) / spread if outer.any() and spread > 0 else 0.0
    size = np.log2(2 * np.sqrt(mask.sum() / np.pi) / diameter)
    held = np.mean([mask[place] for place in positive])
    return float(held * np.exp(-0.5 * size**2) * np.clip(0.4 + 0.4 * step, 0.01, 1))


def _pixels(prompt: Prompt, height: int, width: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    points = list(prompt.points)
    for (x0, y0), (x1, y1) in zip(prompt.scribble, prompt.scribble[1:] or prompt.scribble, strict=False):
        steps = int(max(abs(x1 - x0), abs(y1 - y0))) + 1
        points += [Point(x=x0 + (x1 - x0) * i / steps, y=y0 + (y1 - y0) * i / steps) for i in range(steps + 1)]
    box = prompt.box
    if box and not any(point.positive for point in points):
        points.append(Point(x=(box.left + box.right) / 2, y=(box.top + box.bottom) / 2))
    inside = [p for p in points if 0 <= p.x < width and 0 <= p.y < height]
    positive = dict.fromkeys((int(p.y), int(p.x)) for p in inside if p.positive)
    negative = dict.fromkeys((int(p.y), int(p.x)) for p in inside if not p.positive)
    return [place for place in positive if place not in negative], list(negative)


def _diameter(prompt: Prompt) -> float:
    if prompt.box:
        return max(
            2.0, float(np.sqrt(abs((prompt.box.right - prompt.box.left) * (prompt.box.bottom - prompt.box.top))))
        )
    return max(2.0, prompt.diameter or estimate_diameter(prompt.image))


def _keep(mask: Mask, positive: list[tuple[int, int]], negative: list[tuple[int, int]], box: Box | None) -> Mask:
    """Cut away what a box or a negative point forbids."""
    if box:
        allowed = np.zeros_like(mask)
        rows = slice(max(0, int(np.floor(box.top))), max(0, int(np.ceil(box.bottom))))
        allowed[rows, max(0, int(np.floor(box.left))) : max(0, int(np.ceil(box.right)))] = True
        mask = mask & allowed
    row, column = positive[0]
    if any(mask[place] for place in negative):
        seeds = np.zeros_like(mask)
        for place in (*positive, *negative):
            seeds[place] = True
        part = part_of(mask, seeds, row, column)
        mask = mask if part is None else part
        for place in negative:
            mask[place] = False
    return around(mask, row, column)


def _spread(ranked: list[tuple[Mask, float]]) -> list[tuple[Mask, float]]:
    """Return the best mask, and then those that differ most from what is chosen and are good."""
    left = sorted(ranked, key=lambda pair: -pair[1])
    chosen: list[tuple[Mask, float]] = []
    while left and len(chosen) < LEVELS:
        scores = [
            quality * (1 - max((_iou(mask, other) for other, _ in chosen), default=0.0)) for mask, quality in left
        ]
        chosen.append(left.pop(int(np.argmax(scores))))
    return chosen


def _iou(first: Mask, second: Mask) -> float:
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0
