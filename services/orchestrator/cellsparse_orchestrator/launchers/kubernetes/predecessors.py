"""An attempt begins only after its predecessors: two trainers of one run would overwrite each other's checkpoints."""

import time
from collections.abc import Callable

from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest, job_name
from cellsparse_orchestrator.launchers.kubernetes.reasons import may_run


class Predecessors:
    """Ends what is left of earlier attempts, and limits the wait for it.

    Args:
        jobs: The cluster's Jobs.
        pods: The cluster's pods.
        remove: Deletes a Job by name, soon.
    """

    def __init__(self, jobs: ObjectCache, pods: ObjectCache, remove: Callable[[str], None]) -> None:
        self._jobs = jobs
        self._pods = pods
        self._remove = remove
        self._since: dict[str, float] = {}

    def blocking(self, request: JobRequest, grace_seconds: float) -> int:
        """Return the earlier attempt that still has a Job or a pod that may train; 0 if there is none.

        Args:
            request: The new attempt.
            grace_seconds: How long to wait for a pod that cannot be ended because its node is away.
        """
        for attempt in range(1, request.attempt):
            name = job_name(request.run_id, attempt)
            there = self._jobs.get(name) is not None
            if there:
                self._remove(name)
            if there or any(may_run(pod) for pod in self._pods.group(name)):
                since = self._since.setdefault(request.name, time.monotonic())
                return attempt if time.monotonic() - since < grace_seconds else 0
        return 0

    def forget(self, name: str) -> None:
        """Forget an attempt that has ended."""
        self._since.pop(name, None)
