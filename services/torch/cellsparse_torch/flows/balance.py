"""How much background counts where people label cells and little around them."""

MOST_WEIGHT = 20.0
"""Largest weight of a background pixel, so that a handful of them cannot rule the loss."""


def background_weight(cells: int, background: int, likely: float, share: float) -> float:
    """Return the weight (from 1) with which background, labelled and likely, has its share of the pixels.

    A network taught with too little background finds cells likely everywhere: its logits are off by the logarithm of
    this weight, its cells too fat, and noise becomes cells.

    Args:
        cells: Number of labelled pixels of cells.
        background: Number of pixels labelled as background; without any, the weight is 1.
        likely: Number of pixels of likely background, each counted with its own weight.
        share: Share of the pixels that is taken to be background, 0 to below 1.
    """
    if not background:
        return 1.0
    return min(MOST_WEIGHT, max(1.0, share / (1 - share) * cells / (background + likely)))
