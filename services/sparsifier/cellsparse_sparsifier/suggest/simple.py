"""The plain choices, which every clever one must beat: at random, and the extremes of intensity."""

import numpy as np

from cellsparse_sparsifier.suggest.pool import Choice, Pool


def choose_random(pool: Pool, count: int, seed: int) -> Choice:
    """Choose candidates at random."""
    choice = Choice(pool=pool)
    for index in np.random.default_rng(seed).permutation(len(pool)):
        if len(choice.chosen) == count:
            break
        if choice.open()[index]:
            choice.take(index, "Drawn at random among the candidates.", 0.0)
    return choice


def choose_minmax(pool: Pool, count: int) -> Choice:
    """Choose the darkest and the brightest candidates in turn, the darkest first (Sugawara 2023's MINMAX)."""
    choice = Choice(pool=pool)
    order = np.argsort(pool.intensity, kind="stable")
    while len(choice.chosen) < count:
        left = order[choice.open()[order]]
        if not left.size:
            break
        dark = len(choice.chosen) % 2 == 0
        index = left[0] if dark else left[-1]
        reason = f"Among the {'darkest' if dark else 'brightest'} candidates: its mean is {pool.intensity[index]:.4g}."
        choice.take(index, reason, 0.0)
    return choice
