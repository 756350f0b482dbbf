"""Which masks to offer: an expected IoU per mask, and a choice that is good whichever mask was meant."""

import numpy as np
import numpy.typing as npt

from cellsparse_gateway.prompts.coefficients import CONSTANT, FACTORS
from cellsparse_gateway.prompts.features import NAMES

SOFTNESS = 0.06
"""Differences of expected IoU below this count as ties when the probability that a mask was meant is estimated."""


def expected(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the expected IoU (N), 0 to 1, of masks with the features of `features.measure` (N, F)."""
    values = features.astype(np.float64)
    first, second = np.array([FACTORS[name] for name in NAMES]).T
    result: npt.NDArray[np.float64] = np.clip(CONSTANT + values @ first + values**2 @ second, 0.01, 0.99)
    return result


def probabilities(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how probable it is that each mask (N > 0) is the one that was meant, from the expected IoU."""
    weights = np.exp((scores - scores.max()) / SOFTNESS)
    result: npt.NDArray[np.float64] = weights / weights.sum()
    return result


def vote(masks: npt.NDArray[np.bool_], probability: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return the pixels (Y, X) that are more probably in the meant mask than not: smoother than any of the masks."""
    result: npt.NDArray[np.bool_] = np.einsum("n,nyx->yx", probability, masks) > 0.5
    return result


def choose(
    probability: npt.NDArray[np.float64], overlap: npt.NDArray[np.float32], count: int
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Choose masks so that one of them is probably near the meant one.

    Args:
        probability: That each mask (N) is the one that was meant.
        overlap: IoU between masks (N, N).
        count: Most masks to choose.

    Returns:
        Indices, the one to show first leading: it has the greatest IoU to expect over all masks that may be meant, and
        each further one adds most to the best IoU of those before it. And for each of the N masks, that IoU.
    """
    chosen: list[int] = []
    covered = np.zeros(len(probability))
    for _ in range(min(count, len(probability))):
        gain = (np.maximum(overlap, covered[:, None]) * probability[:, None]).sum(0)
        gain[chosen] = -1.0
        chosen.append(int(gain.argmax()))
        covered = np.maximum(covered, overlap[:, chosen[-1]])
    return chosen, (overlap * probability[:, None]).sum(0)
