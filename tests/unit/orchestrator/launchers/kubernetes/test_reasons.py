"""From what the Kubernetes API says to what a person reads; the objects are as an API server of 1.36 sends them."""

import copy

import pytest

from cellsparse_orchestrator.launchers.kubernetes.projections import project_job, project_pod
from cellsparse_orchestrator.launchers.kubernetes.reasons import judge
from cellsparse_proto.v1 import common_pb2

LOST = common_pb2.FAILURE_REASON_LOST
EVICTED = common_pb2.FAILURE_REASON_EVICTED
UNSCHEDULABLE = common_pb2.FAILURE_REASON_UNSCHEDULABLE
NO_GPU = (
    "0/3 nodes are available: 1 Insufficient memory, 3 Insufficient nvidia.com/gpu. no new claims to deallocate, "
    "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
)


def job(*conditions, **spec):
    return project_job(
        {
            "metadata": {"name": "run-1-a1", "uid": "u", "labels": {"cellsparse.dev/run": "run-1"}},
            "spec": {"activeDeadlineSeconds": 604800, "suspend": False, **spec},
            "status": {"conditions": list(conditions)} if conditions else {},
        }
    )


def pod(*conditions, container=None, metadata=None, node="gpu-7", **status):
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    containers = [{"name": "trainer", "image": "example.org/unet:1", "state": container or waiting}]
    return project_pod(
        {
            "metadata": {"name": "run-1-a1-0-x7k2p", "creationTimestamp": "2026-11-22T10:00:00Z", **(metadata or {})},
            "spec": {
                **({"nodeName": node} if node else {}),
                "containers": [{"name": "trainer", "resources": {"limits": {"memory": "8Gi", "nvidia.com/gpu": "1"}}}],
            },
            "status": {
                "phase": "Pending",
                "conditions": list(conditions),
                "containerStatuses": containers if node else [],
                **status,
            },
        }
    )


def ended(code, reason):
    return {"terminated": {"exitCode": code, "reason": reason, "finishedAt": "2026-11-22T10:05:00Z"}}


def unschedulable(message):
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(condition, node="")


def disrupted(reason, message="", **fields):
    return pod({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}, **fields)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (NO_GPU, "Waiting for a node: 0/3 nodes have memory and nvidia.com/gpu free."),
        (
            "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            "Waiting for a node: 0/3 nodes have nvidia.com/gpu free.",
        ),
        (
            "0/2 nodes are available: 1 Insufficient nvidia.com/mig-1g.10gb, "
            "1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: no.",
            "Waiting for a node: 0/2 nodes fit: 1 Insufficient nvidia.com/mig-1g.10gb, "
            "1 node(s) didn't match Pod's node affinity/selector.",
        ),
        ("no nodes available to schedule pods", "Waiting for a node: no nodes available to schedule pods"),
    ],
)
def test_unschedulable_says_what_is_missing(message, sentence):
    verdict = judge(job(), [unschedulable(message)])
    assert (verdict.message, verdict.waiting, verdict.ended, verdict.stuck) == (sentence, True, False, False)


def test_before_there_is_a_pod():
    assert judge(job(), []).message == "Waiting for its pod."
    assert judge(job(), []).about == "run-1-a1"
    assert judge(job(suspend=True), []).message == "Waiting, since somebody has suspended its Job."


def test_a_pod_that_starts_and_one_that_runs():
    starting = judge(job(), [pod()])
    assert (starting.message, starting.waiting, starting.about) == ("Starting on gpu-7.", True, "run-1-a1-0-x7k2p")
    running = pod(container={"running": {"startedAt": "2026-11-22T10:00:05Z"}}, phase="Running", podIP="10.1.2.3")
    assert judge(job(), [running]).address == "10.1.2.3"


@pytest.mark.parametrize(
    ("reason", "stuck"),
    [("ImagePullBackOff", True), ("ErrImagePull", True), ("InvalidImageName", False), ("ErrImageNeverPull", False)],
)
def test_an_image_that_cannot_be_pulled(reason, stuck):
    verdict = judge(job(), [pod(container={"waiting": {"reason": reason, "message": "no such manifest"}})])
    assert verdict.message == "The image example.org/unet:1 cannot be pulled: no such manifest"
    assert (verdict.stuck, verdict.ended, verdict.reason) == (stuck, not stuck, UNSCHEDULABLE)


def test_a_secret_that_is_missing():
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "store" not found'}
    verdict = judge(job(), [pod(container={"waiting": waiting})])
    assert verdict.message == 'The trainer\'s container cannot be made: secret "store" not found'
    assert verdict.stuck


def test_out_of_memory_names_the_limit():
    verdict = judge(job(), [pod(container=ended(137, "OOMKilled"), phase="Failed")])
    assert (verdict.ended, verdict.reason) == (True, common_pb2.FAILURE_REASON_OUT_OF_MEMORY)
    assert "limit of 8Gi" in verdict.message
    assert "batch_size" in verdict.message


@pytest.mark.parametrize(
    ("found", "reason", "words"),
    [
        (
            pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
            EVICTED,
            "evicted from gpu-7: The node was low on resource: memory.",
        ),
        (
            disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),
            EVICTED,
            "pod from gpu-7: Eviction API: evicting",
        ),
        (disrupted("PreemptionByScheduler", "preempting to accommodate"), EVICTED, "preempting to accommodate"),
        (disrupted("DeletionByTaintManager", phase="Running"), LOST, "The node gpu-7 was lost."),
        (disrupted("DeletionByPodGC", phase="Failed"), LOST, "The node gpu-7 was lost."),
        (pod(phase="Failed", reason="NodeLost"), LOST, "The node gpu-7 was lost."),
        (pod(container=ended(1, "Error"), phase="Failed"), LOST, "ended with code 1 (Error)"),
        (pod(phase="Failed", reason="UnexpectedAdmissionError", message="Allocate failed"), LOST, "Allocate failed"),
    ],
)
def test_how_a_pod_ended(found, reason, words):
    verdict = judge(job({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}), [found])
    assert (verdict.ended, verdict.reason) == (True, reason)
    assert words in verdict.message


@pytest.mark.parametrize("kind", ["FailureTarget", "Failed"])
def test_the_deadline_is_the_jobs_and_not_tried_again(kind):
    failed = job({"type": kind, "status": "True", "reason": "DeadlineExceeded", "message": "Job was active longer"})
    killed = pod(container=ended(137, "Error"), phase="Failed")
    for pods in ([], [killed]):
        verdict = judge(failed, pods)
        assert (verdict.ended, verdict.reason) == (True, common_pb2.FAILURE_REASON_USER_ERROR)
        assert "longer than the 604,800 s" in verdict.message


def test_what_somebody_deleted():
    leaving = pod(metadata={"deletionTimestamp": "2026-11-22T10:05:00Z"}, phase="Running", podIP="10.1.2.3")
    assert judge(job(), [leaving]).waiting
    failed = job({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"})
    assert judge(failed, []).message.startswith("Its pod is gone")
    assert judge(None, []).message == "Its Job is gone: somebody deleted it."
    assert {judge(failed, []).reason, judge(None, []).reason, judge(None, [leaving]).reason} == {LOST}


def test_the_newest_pod_counts():
    old = pod(container=ended(1, "Error"), phase="Failed")
    new = copy.deepcopy(pod())
    assert judge(job(), [old, new]).message == "Starting on gpu-7."


def several(*pods):
    """The pods of a Job of as many, as index 0, 1 and so on."""
    for index, one in enumerate(pods):
        one["metadata"]["labels"] = {"batch.kubernetes.io/job-completion-index": str(index)}
    return job(completions=len(pods)), list(pods)


def running(address):
    return pod(container={"running": {}}, phase="Running", podIP=address)


def test_a_training_on_several_nodes_runs_when_all_its_pods_do():
    whole = judge(*several(running("10.0.0.1"), running("10.0.0.2")))
    assert (whole.address, whole.addresses) == ("10.0.0.1", ("10.0.0.1", "10.0.0.2"))
    there, pods = several(running("10.0.0.1"), running("10.0.0.2"))
    assert judge(there, pods[:1]).message == "Waiting for its 2 pods."
    starting = judge(*several(running("10.0.0.1"), pod()))
    assert (starting.waiting, starting.address, starting.in_part) == (True, "", False)
    assert starting.message.startswith("2 of 2 pods have a node. Starting on")


def test_some_places_are_not_all():
    part = judge(*several(running("10.0.0.1"), unschedulable(NO_GPU)))
    assert (part.address, part.waiting, part.no_room, part.in_part) == ("", True, True, True)
    assert part.placed == 1
    assert part.message.startswith("1 of 2 pods have a node. Waiting for a node: 0/3 nodes have")
    none = judge(*several(unschedulable(NO_GPU), unschedulable(NO_GPU)))
    assert (none.no_room, none.in_part) == (True, False)


def test_one_pod_that_ended_ends_the_attempt_for_the_reason_that_says_most():
    short = pod(container=ended(137, "OOMKilled"), phase="Failed")
    gone = pod(container=ended(1, "Error"), phase="Failed")
    assert judge(*several(running("10.0.0.1"), gone)).reason == LOST
    assert judge(*several(gone, short)).reason == common_pb2.FAILURE_REASON_OUT_OF_MEMORY


def test_of_pods_of_the_same_index_the_newest_counts():
    there, pods = several(running("10.0.0.1"), running("10.0.0.2"))
    old = pod(container=ended(1, "Error"), phase="Failed")
    old["metadata"]["labels"] = pods[1]["metadata"]["labels"]
    assert judge(there, [old, *pods]).addresses == ("10.0.0.1", "10.0.0.2")
