"""All candidates of a round as one table, and the rules that every choice keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cellsparse_sparsifier.suggest.candidates import Candidates, Seen
from cellsparse_sparsifier.suggest.features import NAMES
from cellsparse_sparsifier.suggest.space import Indices, Points, robust_scores, typicality

MOST_AN_IMAGE = 3
"""Suggestions of an image at most: cells of one image are alike."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The candidates of all images, one row each.

    Attributes:
        images: The images in their order.
        image: (N,) index of each candidate's image.
        place: (N,) index of each candidate in its image.
        points: (N, F) robust z-scores of the features.
        typical: (N,) how typical each candidate is among all, 0 to 1.
        intensity: (N,) mean of the image over each, in its own units.
        disagreement: (N,) 0 to 1.
        mismatch: (N,) whether only the model or only the detector sees it.
        labelled: (M, F) robust z-scores of the cells that are labelled.
        labelled_image: (M,) index of their image.
    """

    images: tuple[Candidates, ...]
    image: Indices
    place: Indices
    points: Points
    typical: Points
    intensity: Points
    disagreement: Points
    mismatch: npt.NDArray[np.bool_]
    labelled: Points
    labelled_image: Indices

    def __len__(self) -> int:
        return len(self.image)

    def seen(self, index: int) -> Seen:
        """Return who sees a candidate."""
        return self.images[int(self.image[index])].seen[int(self.place[index])]


def make_pool(images: Sequence[Candidates]) -> Pool:
    """Make one table of the candidates of all images."""
    sizes = [len(each) for each in images]
    none = np.zeros((0, len(NAMES)))
    features = np.concatenate([none, *(each.features for each in images)])
    labelled = np.concatenate([none, *(each.labelled for each in images)])
    known = np.concatenate([features, labelled])
    points = robust_scores(features, known)
    empty = np.zeros(0)
    return Pool(
        images=tuple(images),
        image=np.repeat(np.arange(len(images)), sizes),
        place=np.concatenate([np.zeros(0, np.int64), *(np.arange(size) for size in sizes)]),
        points=points,
        typical=typicality(points),
        intensity=np.concatenate([empty, *(each.intensity for each in images)]),
        disagreement=np.concatenate([empty, *(each.disagreement for each in images)]),
        mismatch=np.array([seen is not Seen.BOTH for each in images for seen in each.seen], np.bool_),
        labelled=robust_scores(labelled, known),
        labelled_image=np.repeat(np.arange(len(images)), [len(each.labelled) for each in images]),
    )


@dataclass(kw_only=True)
class Choice:
    """Candidates that are chosen, in order, never more than `MOST_AN_IMAGE` of an image."""

    pool: Pool
    chosen: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def open(self) -> npt.NDArray[np.bool_]:
        """Return which candidates may still be chosen."""
        counts = np.bincount(self.pool.image[self.chosen], minlength=len(self.pool.images))
        free: npt.NDArray[np.bool_] = counts[self.pool.image] < MOST_AN_IMAGE
        free[self.chosen] = False
        return free

    def take(self, index: int, reason: str, score: float) -> None:
        """Choose a candidate."""
        self.chosen.append(int(index))
        self.reasons.append(reason)
        self.scores.append(float(score))
