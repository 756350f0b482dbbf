"""End all trainings of an installation, whatever attempts they belong to: it goes back to an earlier release."""

import time

from kubernetes import client

from cellsparse_common.errors import FailedPrecondition
from cellsparse_orchestrator.launchers.kubernetes.cluster import call
from cellsparse_orchestrator.launchers.kubernetes.manifests import selector
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings

END_SECONDS = 300.0
"""For pods that write their last checkpoint; their own grace is a minute."""
_ASK_SECONDS = 1.0
_ENDED = ("Succeeded", "Failed")


def end_all(settings: ClusterSettings, api: client.ApiClient, seconds: float = END_SECONDS) -> None:
    """Delete the Jobs of all attempts, and return when none of their pods runs any more.

    Args:
        settings: Namespace and name of the installation, whose orchestrator has ended.
        api: The client of the cluster.
        seconds: How long to wait for the pods.

    Raises:
        FailedPrecondition: A pod has not ended in that time, or the API server refuses.
        Unavailable: The API server does not answer.
    """
    jobs, pods = client.BatchV1Api(api), client.CoreV1Api(api)
    chosen = {"label_selector": selector(settings.instance)}
    for job in call(jobs.list_namespaced_job, settings.namespace, **chosen).items:
        name = job.metadata.name
        call(jobs.delete_namespaced_job, name, settings.namespace, propagation_policy="Background")
    end = time.monotonic() + seconds
    while True:
        found = call(pods.list_namespaced_pod, settings.namespace, **chosen).items
        left = [pod.metadata.name for pod in found if pod.status.phase not in _ENDED]
        if not left:
            return
        if time.monotonic() > end:
            raise FailedPrecondition(
                f"The pods {', '.join(sorted(left))} have not ended in {seconds:.0f} s, and may write checkpoints; "
                "delete them, then try again."
            )
        time.sleep(_ASK_SECONDS)
