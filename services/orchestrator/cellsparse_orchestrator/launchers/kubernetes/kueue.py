"""What Kueue says of a Job: its object `Workload`, turned into sentences for people."""

import json
import logging
from functools import partial

from kubernetes import client

from cellsparse_common.errors import CellsparseError
from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.cluster import call
from cellsparse_orchestrator.launchers.kubernetes.settings import Object
from cellsparse_orchestrator.launchers.kubernetes.watch import ResourceWatch

_LOG = logging.getLogger(__name__)
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_JOB_LABEL = "kueue.x-k8s.io/job-uid"
_WORKLOADS = ("kueue.x-k8s.io", "v1beta2")
_PREEMPTED = "Preempted"
_DEACTIVATED = "Deactivated"
"""Begins the reasons of evictions by which a person, or a limit of Kueue's, ends a Workload for good."""
_PREEMPTORS = {
    "InClusterQueue": "a training of higher priority in the same ClusterQueue needs its place",
    "InCohortReclamation": "the quota that it had borrowed is needed by the queue that owns it",
    "InCohortFairSharing": "another queue of the cohort has less than its fair share",
    "InCohortReclaimWhileBorrowing": "a training of higher priority in the cohort needs its place",
}
"""What a preemption's reason means."""


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
        self.watch = ResourceWatch("workloads", self._list, project_workload, cache)

    def of_job(self, name: str) -> Object | None:
        """Return the newest Workload of a Job; None if it has none yet, or the watch is not allowed."""
        return next(iter(reversed(self._cache.group(name))), None)

    def accepted(self, name: str) -> None:
        """Note that an attempt is about to begin in a Job: evictions until now did not end it."""
        self._known[name] = evictions(self.of_job(name))

    def forget(self, name: str) -> None:
        """Forget a Job whose attempt has ended."""
        self._known.pop(name, None)

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
        again = evictions(workload) > self._known.get(name, 0)
        if not (job["spec"].get("suspend") or again) or is_deactivated(workload):
            return ""
        return preempted(queue, workload)

    def _ask(self, job_uid: str) -> Object | None:
        """Return a Job's Workload as the API server has it; None if it has none or we may not read it."""
        try:
            answer = call(self._list, label_selector=f"{_JOB_LABEL}={job_uid}", _preload_content=False)
        except CellsparseError as error:
            _LOG.warning("Workloads cannot be read: %s", error.message)
            return None
        items = json.loads(answer.data)["items"] if answer is not None else []
        return project_workload(items[0]) if items else None


def project_workload(workload: Object) -> Object:
    """Return the parts of a Workload that the sentences need."""
    metadata, status = workload["metadata"], workload.get("status", {})
    owners = metadata.get("ownerReferences", [])
    conditions = status.get("conditions", [])
    return {
        "metadata": {"name": metadata["name"], "created": metadata["creationTimestamp"]},
        "job": next((owner["name"] for owner in owners if owner["kind"] == "Job"), ""),
        "conditions": {
            one["type"]: {key: one.get(key, "") for key in ("status", "reason", "message")} for one in conditions
        },
        "checks": [
            one["name"] for one in status.get("admissionChecks", []) if one.get("state") not in ("Ready", "Rejected")
        ],
        "evictions": [
            {"reason": one["reason"], "count": one.get("count", 0)}
            for one in status.get("schedulingStats", {}).get("evictions", [])
        ],
    }


def job_of(workload: Object) -> str:
    """Return the name of a projected Workload's Job."""
    return str(workload["job"])


def evictions(workload: Object | None) -> int:
    """Return how often Kueue took a Workload's place back."""
    return sum(one["count"] for one in workload["evictions"]) if workload else 0


def is_deactivated(workload: Object | None) -> bool:
    """Return whether a Workload was ended for good, by a person or by a limit of Kueue's."""
    evicted = _condition(workload, "Evicted")
    return evicted.get("status") == "True" and evicted["reason"].startswith(_DEACTIVATED)


def waits_for(queue: str, workload: Object | None) -> str:
    """Say what a suspended Job waits for."""
    if workload is None:
        return f"Waiting for Kueue to take it into queue {queue}."
    if is_deactivated(workload):
        return f"Kueue does not start it any more: {_condition(workload, 'Evicted')['message']}"
    quota = _condition(workload, "QuotaReserved")
    if quota.get("status") == "True":
        checks = ", ".join(workload["checks"])
        return f"Waiting for the checks of queue {queue}: {checks}." if checks else f"Queue {queue} has admitted it."
    why = quota.get("message", "")
    return f"Waiting for quota of queue {queue}{f': {why}' if why else ''}".removesuffix(".") + "."


def preempted(queue: str, workload: Object | None) -> str:
    """Say why Kueue took a Job's place back."""
    evicted = _condition(workload, "Evicted")
    if evicted.get("status") != "True" or evicted["reason"] == _PREEMPTED:
        preemption = _condition(workload, _PREEMPTED)
        why = _PREEMPTORS.get(preemption.get("reason", ""), "")
        return f"Preempted by Kueue in queue {queue}{f': {why}' if why else ''}."
    return f"Evicted by Kueue from queue {queue}: {evicted['message'] or evicted['reason']}".removesuffix(".") + "."


def _condition(workload: Object | None, kind: str) -> Object:
    found: Object = workload["conditions"].get(kind, {}) if workload else {}
    return found
