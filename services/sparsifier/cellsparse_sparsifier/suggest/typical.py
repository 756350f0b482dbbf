"""Without a model: the most typical candidate of each kind, kinds of images first (TypiClust, arXiv 2202.02794).

With few labels typical examples teach most; uncertain or extreme ones lose to a draw at random. Cells of one image are
alike, so the images are clustered first, and each cluster of images gives its share of cells.
"""

import numpy as np

from cellsparse_sparsifier.suggest.pool import MOST_AN_IMAGE, Choice, Pool
from cellsparse_sparsifier.suggest.space import Indices, k_means, robust_scores, typicality

EXTREMES_FROM = 4
"""With so many cells, two of them are the darkest and the brightest (Sugawara 2023)."""
COMMON = 0.1
"""The darkest and the brightest are of the more typical candidates: this share of the least typical is left out."""


def choose_typical(pool: Pool, count: int, seed: int) -> Choice:
    """Choose the most typical candidates of clusters, and with `EXTREMES_FROM` or more the darkest and the brightest.

    Images with labelled cells come last: their kind is known.
    """
    choice = Choice(pool=pool)
    extremes = 2 if count >= EXTREMES_FROM else 0
    groups = _image_groups(pool, count - extremes, seed)
    for number, (members, share) in enumerate(groups):
        _take_typical(choice, members, share, f"{number + 1} of {len(groups)}", [seed, number])
    if extremes:
        _take_extremes(choice)
    # A group may have too few candidates for its share: the rest goes to the most typical ones of all.
    for index in np.argsort(-pool.typical, kind="stable"):
        if len(choice.chosen) >= min(count, len(pool)):
            break
        if choice.open()[index]:
            choice.take(index, "Typical of the cells of all images.", pool.typical[index])
    return choice


def _image_groups(pool: Pool, count: int, seed: int) -> list[tuple[Indices, int]]:
    """Return groups of alike images with the cells that each gives: those without labels first, then large ones."""
    present = np.unique(pool.image)
    if not present.size or count < 1:
        return []
    middles = np.stack([np.median(pool.points[pool.image == index], axis=0) for index in present])
    labelled = np.isin(present, pool.labelled_image)
    owner = k_means(robust_scores(middles), min(count + int(labelled.sum()), present.size), seed)
    groups = [present[owner == index] for index in range(int(owner.max()) + 1)]
    known = [int(np.isin(pool.labelled_image, group).sum()) for group in groups]
    order = sorted(range(len(groups)), key=lambda index: (known[index], -len(groups[index]), int(groups[index][0])))
    used = order[:count]
    shares = _shares(count, [len(groups[index]) for index in used])
    return [(groups[index], share) for index, share in zip(used, shares, strict=True)]


def _shares(count: int, sizes: list[int]) -> list[int]:
    """Return how many cells each group of images gives: one, then those with most images for each cell in turn.

    No group gives more than its images may; what is left over is not given here.
    """
    shares = [1] * len(sizes)
    while sum(shares) < count:
        open_ = [index for index, size in enumerate(sizes) if shares[index] < MOST_AN_IMAGE * size]
        if not open_:
            break
        shares[max(open_, key=lambda index: (sizes[index] / (shares[index] + 1), -index))] += 1
    return shares


def _take_typical(choice: Choice, images: Indices, share: int, which: str, seed: list[int]) -> None:
    """Choose the most typical candidate of each of `share` clusters of the candidates of some images."""
    pool = choice.pool
    members = np.flatnonzero(np.isin(pool.image, images))
    owner = k_means(pool.points[members], share, seed)
    for cluster in range(int(owner.max(initial=-1)) + 1):
        inside = members[owner == cluster]
        density = typicality(pool.points[inside])
        free = np.flatnonzero(choice.open()[inside])
        if not free.size:
            continue
        best = free[int(density[free].argmax())]
        choice.take(int(inside[best]), _reason(pool, inside, which), density[best])


def _reason(pool: Pool, alike: Indices, which: str) -> str:
    images = len(np.unique(pool.image[alike]))
    many = f"{len(alike)} cells in {images} images look" if images > 1 else f"{len(alike)} cells of its image look"
    like = f": {many} like it" if len(alike) > 1 else ""
    return f"Typical of group {which} of images{like}."


def _take_extremes(choice: Choice) -> None:
    """Choose the darkest and the brightest candidate that are not too odd: dirt and clumps are no cells."""
    pool = choice.pool
    usual = pool.typical >= np.quantile(pool.typical, COMMON) if len(pool) else np.zeros(0, np.bool_)
    for word, sign in (("darkest", 1), ("brightest", -1)):
        free = np.flatnonzero(choice.open() & usual)
        if not free.size:
            return
        index = free[int((sign * pool.intensity[free]).argmin())]
        choice.take(int(index), f"Among the {word} candidates of all images.", pool.typical[index])
