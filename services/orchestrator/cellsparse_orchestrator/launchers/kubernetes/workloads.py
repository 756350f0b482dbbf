"""Kueue's Workloads of the namespace: a watch for what Jobs wait for, and a question for what ended them."""

import json
import logging
from functools import partial

from kubernetes import client

from cellsparse_common.errors import CellsparseError
from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.cluster import call
from cellsparse_orchestrator.launchers.kubernetes.kueue import (
    QUEUE_LABEL,
    evictions,
    is_at_fault,
    is_on_hold,
    on_hold,
    preempted,
    project_workload,
)
from cellsparse_orchestrator.launchers.kubernetes.settings import Object
from cellsparse_orchestrator.launchers.kubernetes.watch import ResourceWatch

_LOG = logging.getLogger(__name__)
_JOB_LABEL = "kueue.x-k8s.io/job-uid"
_WORKLOADS = ("kueue.x-k8s.io", "v1beta2")


class Workloads:
    """The Workloads of a namespace, kept up to date by a watch.

    Args:
        namespace: The namespace.
        api: The client of the cluster.
        cache: Where to keep them, by the name of their Job.
    """

    def __init__(self, namespace: str, api: client.ApiClient, cache: ObjectCache) -> None:
        self._jobs_api = client.BatchV1Api(api)
        self._namespace = namespace
        self._list = partial(
            client.CustomObjectsApi(api).list_namespaced_custom_object, *_WORKLOADS, namespace, "workloads"
        )
        self._cache = cache
        self._known: dict[str, int] = {}
        self._held: set[str] = set()
        """Jobs of attempts that ended because an administrator deactivated their Workload."""
        self.watch = ResourceWatch("workloads", self._list, project_workload, cache)

    def of_job(self, name: str) -> Object | None:
        """Return the newest Workload of a Job; None if it has none yet, or the watch is not allowed."""
        return next(iter(reversed(self._cache.group(name))), None)

    def accepted(self, name: str) -> None:
        """Note that an attempt is about to begin in a Job: evictions until now did not end it."""
        self._known[name] = evictions(self.of_job(name))

    def forget(self, name: str) -> bool:
        """Forget a Job whose attempt has ended; return whether it must stay, as its Workload holds the run back."""
        self._known.pop(name, None)
        held = name in self._held
        self._held.discard(name)
        return held

    def hold(self, name: str, queue: str) -> str:
        """Return what a run waits for whose earlier attempt had this Job, while an administrator holds it back.

        Without such a Job, or once its Workload is active again, that is nothing: "".
        """
        workload = self.of_job(name)
        return on_hold(queue, workload) if workload is not None and is_on_hold(workload) else ""

    def preemption(self, name: str) -> str:
        """Return why Kueue took back the place of a Job whose attempt had begun; empty: it did not.

        The cluster is asked, since the watch may be behind.
        """
        try:
            answer = call(self._jobs_api.read_namespaced_job, name, self._namespace, _preload_content=False)
            if answer is None:
                return ""
            job = json.loads(answer.data)
            queue = job["metadata"].get("labels", {}).get(QUEUE_LABEL, "")
            if not queue:
                return ""
            workload = self._ask(job["metadata"]["uid"]) or self.of_job(name)
        except CellsparseError as error:
            _LOG.warning("whether Job %s was preempted is not known: %s", name, error.message)
            return ""
        if is_on_hold(workload):
            self._held.add(name)
        again = evictions(workload) > self._known.get(name, 0)
        taken_back = job["spec"].get("suspend") or again
        return preempted(queue, workload) if taken_back and not is_at_fault(workload) else ""

    def _ask(self, job_uid: str) -> Object | None:
        """Return a Job's Workload as the API server has it; None if it has none or we may not read it."""
        try:
            answer = call(self._list, label_selector=f"{_JOB_LABEL}={job_uid}", _preload_content=False)
        except CellsparseError as error:
            _LOG.warning("Workloads cannot be read: %s", error.message)
            return None
        items = json.loads(answer.data)["items"] if answer is not None else []
        return project_workload(items[0]) if items else None
