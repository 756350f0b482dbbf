"""Sees to it that an attempt begins after the ones before: two trainers of one run would write over each other."""

import time
from collections.abc import Callable

from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest
from cellsparse_orchestrator.launchers.kubernetes.reasons import may_run


class Predecessors:
    """Ends what is left of earlier attempts, and knows for how long to wait for it.

    Args:
        jobs: All Jobs.
        pods: All pods.
        remove: Deletes a Job by name, soon.
    """

    def __init__(self, jobs: ObjectCache, pods: ObjectCache, remove: Callable[[str], None]) -> None:
        self._jobs = jobs
        self._pods = pods
        self._remove = remove
        self._since: dict[str, float] = {}

    def holds(self, place: JobRequest, patience: float) -> int:
        """Return which earlier attempt still has a Job or a pod that may train, 0 if there is none.

        Args:
            place: Of the new attempt.
            patience: How long to wait for a pod that nobody can end, because its node is away, seconds.
        """
        for attempt in range(1, place.attempt):
            name = JobRequest(run_id=place.run_id, backend=place.backend, attempt=attempt).name
            there = self._jobs.get(name) is not None
            if there:
                self._remove(name)
            if there or any(may_run(pod) for pod in self._pods.group(name)):
                since = self._since.setdefault(place.name, time.monotonic())
                return attempt if time.monotonic() - since < patience else 0
        return 0

    def forget(self, name: str) -> None:
        """Forget a place that has ended."""
        self._since.pop(name, None)
