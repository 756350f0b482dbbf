"""Proposals from a model's prediction: the instance under the click."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_gateway.prompts.shown import Shown, show
from cellsparse_gateway.prompts.types import NOTHING, Mask, Prompt, Proposal, ordered

QUALITY = 0.95
"""Of an instance without a score: a model that was trained on this project's cells is asked first."""
LEAST = 0.01
"""Least quality of an instance."""
LATER = 0.95
"""Most quality of an instance relative to that of the layer before: scores of different models do not compare."""
STEP = 0.03
"""By how much the wheel grows and shrinks an instance, in its diameters."""


@dataclass(frozen=True)
class Model:
    """The instance of a prediction that a prompt shows, and the same a little smaller and larger.

    Args:
        layers: Label numbers (YX, the window of the prompt) of predictions, the one to prefer first: 0 and 1 are no
            cell.
        score: How sure a layer's model is of a cell, 0 to 1, from the place of the layer and the label number. It is
            the quality of the instance as predicted.
    """

    layers: Sequence[npt.NDArray[np.uint32]]
    score: Callable[[int, int], float] = lambda _layer, _number: QUALITY
    name: str = field(default="model", init=False)
    title: str = field(default="From the prediction", init=False)
    licence: str = field(default="", init=False)

    def propose(self, prompt: Prompt) -> list[Proposal]:
        """Return proposals in ascending order of area, or `NOTHING` alone.

        Raises:
            ValueError: A layer has another size than the image.
        """
        shown = show(prompt, *prompt.image.shape[:2])
        found: list[tuple[Mask, float]] = []
        most = 1.0
        for layer, labels in enumerate(self.layers):
            if labels.shape != prompt.image.shape[:2]:
                raise ValueError(
                    f"a layer's window of {labels.shape} does not fit the image's {prompt.image.shape[:2]}"
                )
            number = instance(labels, shown) if shown else 0
            if number and shown:
                mask = labels == number
                quality = min(max(self.score(layer, number), LEAST), most)
                most = LATER * quality
                found += [(mask, quality)]
                found += [(other, 0.5 * quality) for other in _sizes(mask, labels, shown)]
        return ordered(found) if found else [NOTHING]


def instance(labels: npt.NDArray[np.uint32], shown: Shown) -> int:
    """Return the label number of the cell that a prompt shows; 0 if there is none.

    All positive pixels that lie in a cell must lie in the same, and no negative one. A box alone means the cell that
    it cuts least off.
    """
    if shown.box and shown.from_box:
        inside, counts = np.unique(labels[shown.box], return_counts=True)
        whole = {int(n): int((labels == n).sum()) for n in inside if n > 1}
        shares = {int(n): int(c) / whole[int(n)] * int(c) for n, c in zip(inside, counts, strict=True) if n > 1}
        return max(shares, key=lambda n: shares[n]) if shares else 0
    numbers = {int(labels[pixel]) for pixel in shown.positive} - {0, 1}
    if len(numbers) != 1 or labels[shown.positive[0]] <= 1:
        return 0
    number = numbers.pop()
    return 0 if any(labels[pixel] == number for pixel in shown.negative) else number


def _sizes(mask: Mask, labels: npt.NDArray[np.uint32], shown: Shown) -> list[Mask]:
    """Return a mask smaller and larger by two steps, without pixels of other cells; it keeps what the prompt shows."""
    step = max(1.0, STEP * 2 * float(np.sqrt(mask.sum() / np.pi)))
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    free = (labels <= 1) | mask
    sizes = [inside > times * step for times in (1, 2)] + [(outside <= times * step) & free for times in (1, 2)]
    return [part for part in map(shown.allow, sizes) if part.any()]
