"""Proposals from the pixels alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.classical.diameter import estimate_diameter
from cellsparse_common.imaging.classical.pixels import bright_cells, finite
from cellsparse_gateway.prompts.candidates import REACH, candidates, distinct, view
from cellsparse_gateway.prompts.features import measure, overlaps
from cellsparse_gateway.prompts.ranking import choose, expected, probabilities, vote
from cellsparse_gateway.prompts.scale import grown, shrunk
from cellsparse_gateway.prompts.shown import Shown, show
from cellsparse_gateway.prompts.types import NOTHING, Plane, Prompt, Proposal, ordered

Masks = npt.NDArray[np.bool_]

LEVELS = 7
"""Most proposals to choose from."""
WORKING = 28.0
"""Cells of at least twice this diameter (pixels) are found in a smaller copy of the window."""
SEEDS = 3
"""Most places of one prompt that masks are made around."""


@dataclass(frozen=True)
class Classical:
    """Many masks by thresholds and rays around the click, ranked by edges, size and shape. It needs no weights."""

    name: str = "classical"
    title: str = "From the pixels"
    licence: str = ""

    def propose(self, prompt: Prompt) -> list[Proposal]:
        """Return up to `LEVELS` proposals in ascending order of area, or `NOTHING` alone.

        Raises:
            ValueError: The image has no pixel or other axes than YX or YXC.
        """
        image = prompt.image
        if image.ndim not in (2, 3) or not image.size:
            raise ValueError(f"an image of shape {image.shape} has no cells; axes YX or YXC are allowed")
        shown = show(prompt, *image.shape[:2])
        if shown is None:
            return [NOTHING]
        diameter = expected_diameter(prompt, shown)
        rows, columns = shown.surroundings(REACH * diameter + 2, *image.shape[:2])
        here = shown.seen_from(rows, columns)
        row, column = here.positive[0]
        plane = bright_cells(finite(image[rows, columns]), column + 0.5, row + 0.5, diameter)
        return ordered(propose_masks(plane, here, diameter), x=columns.start, y=rows.start)


def expected_diameter(prompt: Prompt, shown: Shown) -> float:
    """Return the diameter (pixels, from 3) to look for: of the box, else as the prompt says, else estimated."""
    if shown.box:
        rows, columns = shown.box
        return max(3.0, float(np.sqrt((rows.stop - rows.start) * (columns.stop - columns.start))))
    given = prompt.diameter if prompt.diameter and prompt.diameter > 0 else estimate_diameter(prompt.image)
    places = np.array(shown.positive)
    return max(3.0, given, float(np.hypot(*np.ptp(places, axis=0))))


def propose_masks(plane: Plane, shown: Shown, diameter: float) -> list[tuple[Masks, float]]:
    """Return up to `LEVELS` masks of a plane in which the cell is bright, with the IoU to expect."""
    factor = max(1, int(diameter / WORKING))
    small = shrunk(plane, factor)
    there = shown.shrunk(factor)
    masks = _masks(small, there, diameter / factor)
    if not len(masks):
        return []
    probability = probabilities(_scores(small, masks, there, diameter / factor))
    together = there.allow(vote(masks, probability))
    if together.any():
        masks, probability = np.concatenate([masks, together[None]]), np.append(probability, 0.0)
    chosen, reliable = choose(probability, overlaps(masks), LEVELS)
    full = [shown.allow(grown(masks[index], factor, plane.shape)) for index in chosen]
    # `ordered` shows the one of the highest quality first: the first chosen has it by the rule of `choose`.
    return [(mask, float(reliable[index])) for mask, index in zip(full, chosen, strict=True)]


def _masks(plane: Plane, shown: Shown, diameter: float) -> Masks:
    """Return all allowed masks around the places that a prompt shows, and what they are together."""
    groups = []
    for row, column in shown.apart(SEEDS):
        seen = view(plane, row, column, diameter)
        if seen is not None:
            groups.append(list(candidates(seen)))
    masks = [mask for group in groups for mask in group]
    if len(groups) > 1:
        masks += [np.logical_or.reduce(together) for together in zip(*groups, strict=False)]
    if shown.box:
        masks.append(shown.ellipse(plane.shape))
    return distinct([shown.allow(mask) for mask in masks], plane.shape)


def _scores(plane: Plane, masks: Masks, shown: Shown, diameter: float) -> npt.NDArray[np.float64]:
    """Return the IoU to expect of each mask."""
    row, column = shown.positive[0]
    seen = view(plane, row, column, diameter)
    if seen is None:
        return np.full(len(masks), 0.1)
    features = measure(
        masks, seen.blurred, row, column, diameter=diameter, background=seen.background, value=seen.value
    )
    scores = expected(features) * shown.held(masks)
    return scores * shown.filled(masks) if shown.box else scores
