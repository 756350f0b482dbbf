"""Turn the state of Jobs and pods into a verdict that a person understands: pure functions of API objects."""

import re
from dataclasses import dataclass, replace

from cellsparse_orchestrator.launchers.kubernetes import kueue
from cellsparse_orchestrator.launchers.kubernetes.projections import INDEX, queue_of
from cellsparse_orchestrator.launchers.kubernetes.settings import Object
from cellsparse_proto.v1 import common_pb2

_NEVER_PULLED = {"InvalidImageName", "ErrImageNeverPull"}
_NOT_PULLED = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}
_NOT_MADE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_NODE_GONE = {"DeletionByTaintManager", "DeletionByPodGC", "NodeLost"}
_TAKEN_AWAY = {"PreemptionByScheduler", "EvictionByEvictionAPI", "TerminationByKubelet"}
_AVAILABLE = re.compile(r"^(\d+)/(\d+) nodes are available: (.*)$", re.DOTALL)
_ASIDES = re.compile(r" (no new claims to deallocate|preemption:).*$", re.DOTALL)
_INSUFFICIENT = re.compile(r"(\d+) Insufficient ([^\s,.]+(?:\.[^\s,.]+)*)")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The state of an attempt's pods."""

    address: str = ""
    """IP address of the first pod; empty until all pods run."""
    addresses: tuple[str, ...] = ()
    """IP addresses of all pods in order, if there is more than one."""
    message: str = ""
    """What the attempt waits for, or why it ended; a sentence for people."""
    waiting: bool = False
    """Whether the attempt waits for the cluster, so that nothing is wrong with the trainer."""
    no_room: bool = False
    """Whether it waits for room: the scheduler has found no node."""
    no_quota: bool = False
    """Whether it waits in a queue of Kueue's."""
    in_part: bool = False
    """Whether some of its pods have nodes while others find none."""
    placed: int = 0
    """How many of its pods have nodes, if it has more than one."""
    fewer: int = 0
    """With how many nodes it could go on, see `FewerNodes`; 0: it waits for all."""
    stuck: bool = False
    """Whether it cannot run unless a person changes something, although the cluster still tries."""
    ended: bool = False
    """Whether it has ended for good."""
    again_seconds: float = 60.0
    """While it waits: how long this verdict holds if nothing changes in the cluster."""
    about: str = ""
    """Name of the object whose events may say more than `message`."""
    reason: int = common_pb2.FAILURE_REASON_UNSPECIFIED
    """Why it is stuck or has ended (proto `FailureReason`)."""


def judge(job: Object | None, pods: list[Object], workload: Object | None = None, *, begun: bool = False) -> Verdict:
    """Return the verdict on an attempt's pods.

    Args:
        job: The attempt's Job; None if it does not exist any more.
        pods: The Job's pods, oldest first.
        workload: What Kueue says of the Job; None: nothing.
        begun: Whether the attempt had begun to train, so that it does not outlive the end of its pods.
    """
    newest = list({pod["metadata"]["labels"].get(INDEX, "0"): pod for pod in pods}.items())
    newest.sort(key=lambda one: int(one[0]))
    there = [pod for _, pod in newest]
    ended = _first_ended(there)
    failed = _ended_job(job) if job is not None else None
    # The pod says why it ended, but only the Job says that its deadline has passed.
    if failed is not None and failed.reason == common_pb2.FAILURE_REASON_USER_ERROR:
        return failed
    queue = queue_of(job)
    if queue and job is not None and failed is None and job["spec"].get("suspend"):
        # However its pods end now, that is because their place was taken back.
        if begun:
            return _evicted(kueue.preempted(queue, workload))
        if kueue.is_given_up(workload):
            message = kueue.waits_for(queue, workload)
            return Verdict(stuck=True, reason=common_pb2.FAILURE_REASON_UNSCHEDULABLE, message=message)
        # Others of its project need not wait for one that is on hold.
        no_quota = not kueue.is_on_hold(workload)
        return Verdict(waiting=True, no_quota=no_quota, message=kueue.waits_for(queue, workload))
    if ended is not None:
        return ended
    if failed is not None:
        return failed
    if job is None:
        return _lost("Its Job is gone: somebody deleted it.")
    wanted = job["spec"].get("completions", 1)
    if len(there) < wanted:
        if job["spec"].get("suspend"):
            return Verdict(waiting=True, message="Waiting, since somebody has suspended its Job.")
        what = "its pod" if wanted == 1 else f"its {wanted} pods"
        return Verdict(waiting=True, message=f"Waiting for {what}.", about=job["metadata"]["name"])
    return _living_pod(there[0]) if wanted == 1 else _living_pods(there)


def judge_pod(pod: Object) -> Verdict:
    """Return the verdict on a pod alone, whatever made it."""
    return _ended_pod(pod) or _living_pod(pod)


def may_run(pod: Object) -> bool:
    """Return whether the pod's trainer may still be training; one on a lost node is taken to have ended."""
    return _ended_pod(pod) is None


def _first_ended(pods: list[Object]) -> Verdict | None:
    """Return why a pod ended; prefer a cause of its own over the loss of another pod."""
    ended = [verdict for verdict in map(_ended_pod, pods) if verdict is not None]
    ended.sort(key=lambda verdict: verdict.reason == common_pb2.FAILURE_REASON_LOST)
    return ended[0] if ended else None


def _living_pods(pods: list[Object]) -> Verdict:
    """Return the verdict on a training on several nodes, which is ready when all its pods are."""
    each = [_living_pod(pod) for pod in pods]
    for verdict in each:
        if verdict.ended or verdict.stuck:
            return verdict
    placed = sum(bool(pod.get("spec", {}).get("nodeName")) for pod in pods)
    slow = next((verdict for verdict in each if verdict.no_room), next((v for v in each if not v.address), None))
    if slow is None:
        addresses = tuple(verdict.address for verdict in each)
        return Verdict(address=addresses[0], addresses=addresses, message=f"It runs on {len(pods)} nodes.")
    message = f"{placed} of {len(pods)} pods have a node. {slow.message}"
    return replace(slow, message=message, placed=placed, in_part=slow.no_room and placed > 0)


def _ended_job(job: Object) -> Verdict | None:
    for condition in job.get("status", {}).get("conditions", []):
        if condition.get("status") != "True" or condition["type"] not in ("Failed", "FailureTarget"):
            continue
        if condition.get("reason") == "DeadlineExceeded":
            seconds = job["spec"].get("activeDeadlineSeconds", 0)
            return Verdict(
                ended=True,
                reason=common_pb2.FAILURE_REASON_USER_ERROR,
                message=f"The attempt took longer than the {seconds:,} s that one may take on this cluster, "
                "the wait for a node included.",
            )
        if condition.get("reason") == "BackoffLimitExceeded":
            return _lost("Its pod is gone: somebody deleted it, or its node is no more.")
        return _lost(f"Its Job failed: {condition.get('message') or condition.get('reason', 'no reason given')}")
    return None


def _ended_pod(pod: Object) -> Verdict | None:
    status = pod.get("status", {})
    node = pod.get("spec", {}).get("nodeName", "")
    disruption = _condition(pod, "DisruptionTarget")
    if disruption.get("status") == "True":
        why = disruption.get("reason", "")
        if why in _NODE_GONE:
            return _lost(f"The node {node} was lost.")
        if why in _TAKEN_AWAY:
            return _evicted(f"The cluster evicted the pod from {node}: {disruption.get('message', why)}")
    if status.get("reason") in _NODE_GONE or status.get("phase") == "Unknown":
        return _lost(f"The node {node} was lost.")
    if status.get("reason") == "Evicted":
        return _evicted(f"The pod was evicted from {node}: {status.get('message', 'no message')}")
    for container in status.get("containerStatuses", []):
        ended = container.get("state", {}).get("terminated")
        if ended is None:
            continue
        if ended.get("reason") == "OOMKilled":
            limit = _memory_limit(pod)
            return Verdict(
                ended=True,
                reason=common_pb2.FAILURE_REASON_OUT_OF_MEMORY,
                message=f"The trainer needed more memory than its limit{f' of {limit}' if limit else ''}: "
                "try a smaller batch_size or crop_size, or a larger limit.",
            )
        return _lost(f"The trainer ended with code {ended.get('exitCode')} ({ended.get('reason', 'no reason given')}).")
    if status.get("phase") in ("Failed", "Succeeded"):
        return _lost(f"The pod ended: {status.get('message') or status.get('reason') or status['phase']}")
    return None


def _living_pod(pod: Object) -> Verdict:
    status = pod.get("status", {})
    name, node = pod["metadata"]["name"], pod.get("spec", {}).get("nodeName", "")
    if pod["metadata"].get("deletionTimestamp"):
        # The reason is about to appear in the Job.
        return Verdict(waiting=True, message="Its pod is being deleted.")
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        message = f"Waiting for a node: {_unschedulable(scheduled.get('message', ''))}"
        return Verdict(waiting=True, no_room=True, message=message)
    for container in status.get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting")
        if waiting is None:
            continue
        verdict = _waiting_container(container.get("image", ""), waiting)
        if verdict is not None:
            return verdict
    if status.get("phase") == "Running" and status.get("podIP"):
        return Verdict(address=status["podIP"], message=f"It runs on {node}.")
    return Verdict(waiting=True, message=f"Starting on {node}." if node else "Waiting for a node.", about=name)


def _waiting_container(image: str, waiting: Object) -> Verdict | None:
    why, what = waiting.get("reason", ""), waiting.get("message", "")
    if why in _NEVER_PULLED | _NOT_PULLED:
        message = f"The image {image} cannot be pulled: {what or why}"
        return Verdict(
            stuck=why in _NOT_PULLED,
            ended=why in _NEVER_PULLED,
            reason=common_pb2.FAILURE_REASON_UNSCHEDULABLE,
            message=message,
        )
    if why in _NOT_MADE:
        message = f"The trainer's container cannot be made: {what or why}"
        return Verdict(stuck=True, reason=common_pb2.FAILURE_REASON_UNSCHEDULABLE, message=message)
    return None


def _unschedulable(message: str) -> str:
    """Shorten the scheduler's message to "0/3 nodes have nvidia.com/gpu free." if only resources are missing."""
    found = _AVAILABLE.match(message)
    if found is None:
        return message or "the scheduler has not found one yet."
    fitting, nodes, why = found.groups()
    short = _INSUFFICIENT.findall(why)
    resources = " and ".join(dict.fromkeys(name for _, name in short))
    if short and sum(int(count) for count, _ in short) >= int(nodes):
        return f"{fitting}/{nodes} nodes have {resources} free."
    return f"{fitting}/{nodes} nodes fit: {_ASIDES.sub('', why).strip()}"


def _condition(pod: Object, kind: str) -> Object:
    conditions = pod.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _memory_limit(pod: Object) -> str:
    containers = pod.get("spec", {}).get("containers", [])
    return str(containers[0].get("resources", {}).get("limits", {}).get("memory", "")) if containers else ""


def _lost(message: str) -> Verdict:
    return Verdict(ended=True, reason=common_pb2.FAILURE_REASON_LOST, message=message)


def _evicted(message: str) -> Verdict:
    return Verdict(ended=True, reason=common_pb2.FAILURE_REASON_EVICTED, message=message)
