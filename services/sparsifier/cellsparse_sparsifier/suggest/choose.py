"""Suggestions: a choice among the candidates of all images by one of the methods, and spots of background."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from cellsparse_sparsifier.suggest.by_error import choose_by_error
from cellsparse_sparsifier.suggest.candidates import Candidates
from cellsparse_sparsifier.suggest.patches import Patch
from cellsparse_sparsifier.suggest.pool import Choice, Pool, make_pool
from cellsparse_sparsifier.suggest.simple import choose_minmax, choose_random
from cellsparse_sparsifier.suggest.space import Indices
from cellsparse_sparsifier.suggest.typical import choose_typical


class Method(Enum):
    """How to choose; the numbers are those of the proto's SuggestionMethod."""

    AUTO = 1
    """`ERRORS` where there are predictions, else `TYPICAL`."""
    RANDOM = 2
    MINMAX = 3
    TYPICAL = 4
    ERRORS = 5


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What to mark next."""

    image: str
    """Name of the image."""
    cell: bool
    """Whether it is a cell; else it is a spot of background."""
    patch: Patch
    """What to draw."""
    score: float
    """How typical or how wrong, 0 to 1."""
    reason: str
    """A sentence."""


def suggest(
    images: Sequence[Candidates],
    *,
    method: Method,
    count: int,
    backgrounds: int = 0,
    seed: int = 0,
    predicted: bool = False,
    labelled: int | None = None,
) -> list[Suggestion]:
    """Choose what to mark next: at most 3 cells and one spot of background of an image.

    Args:
        images: The candidates of each image. The same images in the same order give the same suggestions.
        method: How to choose cells.
        count: Most cells; with fewer candidates there are fewer.
        backgrounds: Most spots of background.
        seed: Of RANDOM, and of the clusters of TYPICAL.
        predicted: Whether the candidates come from predictions: what `AUTO` goes by.
        labelled: Cells that are labelled in all images; None: in those given.

    Returns:
        The cells in the order in which they were chosen, then the spots.
    """
    pool = make_pool(images)
    known = len(pool.labelled) if labelled is None else labelled
    choice = _choose(pool, method, count, seed, predicted=predicted, labelled=known)
    cells = [
        Suggestion(
            image=images[int(pool.image[index])].name,
            cell=True,
            patch=images[int(pool.image[index])].patches[int(pool.place[index])],
            score=score,
            reason=reason,
        )
        for index, reason, score in zip(choice.chosen, choice.reasons, choice.scores, strict=True)
    ]
    return cells + _spots(images, pool.image[choice.chosen], backgrounds)


def used_method(method: Method, *, predicted: bool) -> Method:
    """Return the method that `AUTO` stands for."""
    if method is not Method.AUTO:
        return method
    return Method.ERRORS if predicted else Method.TYPICAL


def _choose(pool: Pool, method: Method, count: int, seed: int, *, predicted: bool, labelled: int) -> Choice:
    method = used_method(method, predicted=predicted)
    if method is Method.RANDOM:
        return choose_random(pool, count, seed)
    if method is Method.MINMAX:
        return choose_minmax(pool, count)
    if method is Method.TYPICAL:
        return choose_typical(pool, count, seed)
    return choose_by_error(pool, count, labelled)


def _spots(images: Sequence[Candidates], first: Indices, count: int) -> list[Suggestion]:
    """Return spots of background, one of an image: of images of chosen cells first, then by brightness."""
    order = list(dict.fromkeys(int(index) for index in first))
    rest = [index for index in range(len(images)) if index not in set(order)]
    rest.sort(key=lambda index: -images[index].spots[0][1] if images[index].spots else np.inf)
    found = [(images[index].name, *images[index].spots[0]) for index in order + rest if images[index].spots]
    reason = "The brightest place of its image that neither the model nor the detector takes for a cell."
    return [
        Suggestion(image=name, cell=False, patch=patch, score=float(np.clip(brightness, 0, 1)), reason=reason)
        for name, patch, brightness in found[:count]
    ]
