"""What Kueue says of a Job: its object `Workload`, turned into sentences for people: pure functions."""

from cellsparse_orchestrator.launchers.kubernetes.settings import Object

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_PREEMPTED = "Preempted"
_DEACTIVATED = "Deactivated"
"""A person has deactivated a Workload."""
_GIVEN_UP = "DeactivatedDueTo"
"""Begins the reasons of evictions by which a limit of Kueue's, or an admission check, ends a Workload for good."""
_OTHERS = frozenset({_PREEMPTED, _DEACTIVATED, "AdmissionCheck", "ClusterQueueStopped", "LocalQueueStopped"})
"""Reasons of evictions that are no fault of the training; after others, as for pods that are not ready, it might be
evicted again and again."""
_PREEMPTORS = {
    "InClusterQueue": "a training of higher priority in the same ClusterQueue needs its place",
    "InCohortReclamation": "the quota that it had borrowed is needed by the queue that owns it",
    "InCohortFairSharing": "another queue of the cohort has less than its fair share",
    "InCohortReclaimWhileBorrowing": "a training of higher priority in the cohort needs its place",
}
"""What a preemption's reason means."""


def project_workload(workload: Object) -> Object:
    """Return the parts of a Workload that the sentences need."""
    metadata, status = workload["metadata"], workload.get("status", {})
    owners = metadata.get("ownerReferences", [])
    conditions = status.get("conditions", [])
    return {
        "metadata": {"name": metadata["name"], "created": metadata["creationTimestamp"]},
        "active": workload.get("spec", {}).get("active", True),
        "job": next((owner["name"] for owner in owners if owner["kind"] == "Job"), ""),
        "conditions": {
            one["type"]: {key: one.get(key, "") for key in ("status", "reason", "message")} for one in conditions
        },
        "checks": [
            {"name": one["name"], "message": one.get("message", "")}
            for one in status.get("admissionChecks", [])
            if one.get("state") not in ("Ready", "Rejected")
        ],
        "evictions": [
            {"reason": one["reason"], "cause": one.get("underlyingCause", ""), "count": one.get("count", 0)}
            for one in status.get("schedulingStats", {}).get("evictions", [])
        ],
    }


def job_of(workload: Object) -> str:
    """Return the name of a projected Workload's Job."""
    return str(workload["job"])


def evictions(workload: Object | None) -> int:
    """Return how often Kueue took a Workload's place back through no fault of its own."""
    counted = [one for one in workload["evictions"] if one["reason"] in _OTHERS] if workload else []
    return sum(one["count"] for one in counted if not (one["reason"] == _DEACTIVATED and one["cause"]))


def is_given_up(workload: Object | None) -> bool:
    """Return whether a limit of Kueue's, or an admission check, has ended a Workload for good."""
    if workload is None or workload["active"]:
        return False
    evicted = _condition(workload, "Evicted")
    by_limit = evicted.get("status") == "True" and evicted["reason"].startswith(_GIVEN_UP)
    return by_limit or _condition(workload, "DeactivationTarget").get("status") == "True"


def is_on_hold(workload: Object | None) -> bool:
    """Return whether a person has deactivated a Workload: it may go on once it is active again."""
    return workload is not None and not workload["active"] and not is_given_up(workload)


def is_at_fault(workload: Object | None) -> bool:
    """Return whether a Workload's last eviction had a reason that is its own, such as pods that do not get ready."""
    evicted = _condition(workload, "Evicted")
    return evicted.get("status") == "True" and evicted["reason"] not in _OTHERS


def waits_for(queue: str, workload: Object | None) -> str:
    """Say what a suspended Job waits for."""
    if workload is None:
        return f"Waiting for Kueue to take it into queue {queue}."
    if is_on_hold(workload):
        return on_hold(queue, workload)
    if is_given_up(workload):
        ended = _condition(workload, "Evicted") or _condition(workload, "DeactivationTarget")
        return f"Kueue does not start it any more: {ended['message']}".removesuffix(".") + "."
    quota = _condition(workload, "QuotaReserved")
    if quota.get("status") == "True":
        checks = ", ".join(_check(one) for one in workload["checks"])
        return f"Waiting for the checks of queue {queue}: {checks}." if checks else f"Queue {queue} has admitted it."
    why = quota.get("message", "")
    return f"Waiting for quota of queue {queue}{f': {why}' if why else ''}".removesuffix(".") + "."


def on_hold(queue: str, workload: Object) -> str:
    """Say that a person has deactivated a Workload, and what ends that."""
    name = workload["metadata"]["name"]
    return (
        f"On hold: an administrator has deactivated its Workload {name} in queue {queue}. "
        "It goes on once that is active again."
    )


def preempted(queue: str, workload: Object | None) -> str:
    """Say why Kueue took a Job's place back."""
    if workload is not None and is_on_hold(workload):
        return on_hold(queue, workload)
    evicted = _condition(workload, "Evicted")
    if evicted.get("status") != "True" or evicted["reason"] == _PREEMPTED:
        preemption = _condition(workload, _PREEMPTED)
        why = _PREEMPTORS.get(preemption.get("reason", ""), "")
        return f"Preempted by Kueue in queue {queue}{f': {why}' if why else ''}."
    return f"Evicted by Kueue from queue {queue}: {evicted['message'] or evicted['reason']}".removesuffix(".") + "."


def _check(one: Object) -> str:
    message = str(one["message"]).strip().removesuffix(".")
    return f"{one['name']} ({message})" if message else str(one["name"])


def _condition(workload: Object | None, kind: str) -> Object:
    found: Object = workload["conditions"].get(kind, {}) if workload else {}
    return found
