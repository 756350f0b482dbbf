"""The parts of Jobs and pods that the launcher keeps, so that thousands of them stay small in memory."""

from cellsparse_orchestrator.launchers.kubernetes.kueue import QUEUE_LABEL
from cellsparse_orchestrator.launchers.kubernetes.settings import Object

INDEX = "batch.kubernetes.io/job-completion-index"
"""Label with the index of a pod among its Job's pods, from 0."""


def project_job(job: Object) -> Object:
    """Return the parts of a Job that `judge` and the launcher read."""
    metadata, spec, status = job["metadata"], job.get("spec", {}), job.get("status", {})
    return {
        "metadata": {"name": metadata["name"], "uid": metadata["uid"], "labels": _labels(metadata)},
        "spec": {key: spec[key] for key in ("suspend", "activeDeadlineSeconds", "completions") if key in spec},
        "status": {"conditions": [_condition(condition) for condition in status.get("conditions", [])]},
    }


def project_pod(pod: Object) -> Object:
    """Return the parts of a pod that `judge` and the launcher read."""
    metadata, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    kept = {"name": metadata["name"], "created": metadata["creationTimestamp"], "labels": _labels(metadata)}
    if metadata.get("deletionTimestamp"):
        kept["deletionTimestamp"] = metadata["deletionTimestamp"]
    limits = [{"resources": {"limits": c.get("resources", {}).get("limits", {})}} for c in spec.get("containers", [])]
    return {
        "metadata": kept,
        "spec": {"nodeName": spec.get("nodeName", ""), "containers": limits},
        "status": {
            **{key: status[key] for key in ("phase", "reason", "message", "podIP") if key in status},
            "conditions": [_condition(condition) for condition in status.get("conditions", [])],
            "containerStatuses": [
                {"image": container.get("image", ""), "state": container.get("state", {})}
                for container in status.get("containerStatuses", [])
            ],
        },
    }


def _labels(metadata: Object) -> Object:
    labels = metadata.get("labels", {})
    kept = ("cellsparse.dev/run", "cellsparse.dev/attempt", INDEX, QUEUE_LABEL)
    return {key: labels[key] for key in kept if key in labels}


def _condition(condition: Object) -> Object:
    return {key: condition[key] for key in ("type", "status", "reason", "message") if key in condition}


def queue_of(job: Object | None) -> str:
    """Return the Kueue LocalQueue that admits a Job; "" without Kueue."""
    return str(job["metadata"]["labels"].get(QUEUE_LABEL, "")) if job is not None else ""


def job_name_of(found: Object) -> str:
    """Return the name of the Job that a Job or pod belongs to; "" if it belongs to no attempt."""
    labels = found["metadata"]["labels"]
    run, attempt = labels.get("cellsparse.dev/run", ""), labels.get("cellsparse.dev/attempt", "")
    return f"{run}-a{attempt}" if run and attempt else ""
