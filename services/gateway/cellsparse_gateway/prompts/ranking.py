"""Which masks to offer: an expected IoU per mask, and a choice that is good whichever mask was meant."""

import numpy as np
import numpy.typing as npt

from cellsparse_gateway.prompts.coefficients import CONSTANT, FACTORS
from cellsparse_gateway.prompts.features import NAMES

SOFTNESS = 0.08
"""Differences of expected IoU below this count as ties when the probability that a mask was meant is estimated."""


def expected(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the expected IoU (N), 0 to 1, of masks with the features of `features.measure` (N, F)."""
    values = features.astype(np.float64)
    first, second = np.array([FACTORS[name] for name in NAMES]).T
    result: npt.NDArray[np.float64] = np.clip(CONSTANT + values @ first + values**2 @ second, 0.01, 0.99)
    return result


def choose(
    scores: npt.NDArray[np.float64], overlap: npt.NDArray[np.float32], count: int
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Choose masks so that one of them is probably near the meant one.

    Args:
        scores: Expected IoU of each mask (N), N > 0.
        overlap: IoU between masks (N, N).
        count: Most masks to choose.

    Returns:
        Indices, the one to show first leading: it has the greatest IoU to expect over all masks that may be meant, and
        each further one adds most to the best IoU of those before it. And for each of the N masks, that IoU.
    """
    probability = np.exp((scores - scores.max()) / SOFTNESS)
    probability /= probability.sum()
    chosen: list[int] = []
    covered = np.zeros(len(scores))
    for _ in range(min(count, len(scores))):
        gain = (np.maximum(overlap, covered[:, None]) * probability[:, None]).sum(0)
        gain[chosen] = -1.0
        chosen.append(int(gain.argmax()))
        covered = np.maximum(covered, overlap[:, chosen[-1]])
    return chosen, probability @ overlap
