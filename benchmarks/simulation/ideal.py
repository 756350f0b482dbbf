"""The ideal scheduler, which takes no time, for comparison."""

import heapq
from collections.abc import Sequence


def ideal_delays(runs: Sequence[tuple[float, float]], slots: int) -> list[float]:
    """Return how long each run waits if a free slot is taken at once, first come, first served.

    Args:
        runs: When each run was submitted and how long it holds a slot, seconds, in the order of submission.
        slots: How many runs train at the same time; no slot is ever lost.
    """
    free = [float("-inf")] * slots
    delays = []
    for asked, held in runs:
        began = max(asked, heapq.heappop(free))
        delays.append(began - asked)
        heapq.heappush(free, began + held)
    return delays


def ideal_end(runs: Sequence[tuple[float, float]], slots: int) -> float:
    """Return when the last run ends (see `ideal_delays`)."""
    delays = ideal_delays(runs, slots)
    return max(asked + delay + held for (asked, held), delay in zip(runs, delays, strict=True))
