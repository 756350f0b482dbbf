"""Trainings that go on with fewer nodes than they asked for, where all cannot be had."""

import time
from dataclasses import replace

from cellsparse_orchestrator.launchers.base import Size
from cellsparse_orchestrator.launchers.kubernetes.reasons import Verdict


class FewerNodes:
    """Knows for how long attempts have waited, and with how many nodes they could go on.

    Args:
        seconds: How long an attempt waits for all of its nodes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[str, float] = {}

    def look(self, name: str, size: Size, verdict: Verdict) -> Verdict:
        """Return the verdict on an attempt's pods, with the number of nodes that it could go on with.

        These are the nodes that its pods have while others find none. In a queue of Kueue's no pod has one, since Kueue
        admits all or none: there it is the fewest that will do.

        Args:
            name: Name of the Job.
            size: The nodes that it asks for, and the fewest that will do.
            verdict: The verdict.
        """
        if not 0 < size.fewest < size.nodes or not verdict.waiting:
            return verdict
        left = self._since.setdefault(name, time.monotonic()) + self._seconds - time.monotonic()
        if left > 0:
            return replace(verdict, again_seconds=min(left, verdict.again_seconds))
        placed = verdict.placed if verdict.in_part else 0
        could = size.fewest if verdict.no_quota else placed
        return replace(verdict, fewer=could) if could >= size.fewest else verdict

    def forget(self, name: str) -> None:
        """Forget an attempt that has ended."""
        self._since.pop(name, None)
