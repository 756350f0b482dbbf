"""Warm trainers that an autoscaler stops: whether one that does not answer sleeps, starts, or cannot start."""

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

from kubernetes import client

from cellsparse_common.errors import CellsparseError
from cellsparse_orchestrator.launchers.kubernetes.cluster import call
from cellsparse_orchestrator.launchers.kubernetes.reasons import judge_pod
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings, Object

_AGAIN_AND_AGAIN = "CrashLoopBackOff"


class WarmTrainers:
    """Looks at the Deployments of warm trainers.

    Args:
        settings: Namespace, and names of the Deployments.
        api: The client of the cluster.
    """

    def __init__(self, settings: ClusterSettings, api: client.ApiClient) -> None:
        self._settings = settings
        self._apps, self._core = client.AppsV1Api(api), client.CoreV1Api(api)

    def problem(self, backend: str) -> str:
        """Return what keeps a backend's warm trainers from starting; empty: nothing that is known."""
        trainer = self._settings.trainer(backend)
        if trainer is None or not trainer.warm_deployment:
            return ""
        name, namespace = trainer.warm_deployment, self._settings.namespace
        try:
            found = _read(self._apps.read_namespaced_deployment, name, namespace)
            if found is None:
                return f"There is no Deployment {name}."
            if not found["spec"].get("replicas"):
                return ""
            labels = ",".join(f"{key}={value}" for key, value in found["spec"]["selector"]["matchLabels"].items())
            pods = _read(self._core.list_namespaced_pod, namespace, label_selector=labels)
        except CellsparseError:
            return ""  # whether something is wrong will be seen when the API server answers
        return why_none_starts(found, pods["items"] if pods else [])


def _read(work: Callable[..., Any], *args: Any, **options: Any) -> Object | None:
    """Return an object of the API as JSON; None if it does not exist (see `call`)."""
    answer = call(work, *args, _preload_content=False, **options)
    return None if answer is None else cast("Object", json.loads(answer.data))


def why_none_starts(deployment: Object, pods: Sequence[Object]) -> str:
    """Return what keeps a Deployment's pods from starting, as a sentence; empty: nothing that is known.

    Args:
        deployment: The Deployment, as JSON.
        pods: Its pods, as JSON.
    """
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses", []):
            if container.get("state", {}).get("waiting", {}).get("reason") == _AGAIN_AND_AGAIN:
                ended = container.get("lastState", {}).get("terminated", {})
                return f"The trainer ends again and again: {ended.get('reason', _AGAIN_AND_AGAIN)}."
        verdict = judge_pod(pod)
        if verdict.stuck or verdict.ended:
            return verdict.message
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition.get("status") == "True":
            return str(condition.get("message", ""))
    return ""
