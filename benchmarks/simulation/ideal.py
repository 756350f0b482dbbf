"""What a scheduler that takes no time would have done with the same places."""

import heapq
from collections.abc import Sequence


def ideal_delays(runs: Sequence[tuple[float, float]], places: int) -> list[float]:
    """Return how long each run waits, first come, first served, where a place that becomes free is taken at once.

    Args:
        runs: Of each run when it was asked for and how long it holds a place, seconds, in the order of asking.
        places: How many train at the same time; none is ever away.
    """
    free = [float("-inf")] * places
    delays = []
    for asked, held in runs:
        began = max(asked, heapq.heappop(free))
        delays.append(began - asked)
        heapq.heappush(free, began + held)
    return delays


def ideal_end(runs: Sequence[tuple[float, float]], places: int) -> float:
    """Return when the last run ends (see `ideal_delays`)."""
    delays = ideal_delays(runs, places)
    return max(asked + delay + held for (asked, held), delay in zip(runs, delays, strict=True))
