"""What Kueue says of a Job, as a person reads it; Workloads are as Kueue 0.17 writes them."""

import json
import time

import pytest
from kubernetes import client
from support.kubernetes_api import serving_api
from support.limits import PATIENCE

from cellsparse_common.errors import Unavailable
from cellsparse_orchestrator.launchers.kubernetes import workloads
from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.kueue import job_of, preempted, project_workload, waits_for
from cellsparse_orchestrator.launchers.kubernetes.projections import project_job, project_pod
from cellsparse_orchestrator.launchers.kubernetes.reasons import judge
from cellsparse_orchestrator.launchers.kubernetes.workloads import Workloads
from cellsparse_proto.v1 import common_pb2

NO_ROOM = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu, 1 more needed"
JOB = "run-1-a1"


def workload(*conditions, evictions=0, active=True, **status):
    kinds = [dict(zip(("type", "status", "reason", "message"), one, strict=True)) for one in conditions]
    stats = {"evictions": [{"reason": "Preempted", "underlyingCause": "", "count": evictions}]} if evictions else {}
    return {
        "metadata": {
            "name": "job-run-1-a1-1b2c3",
            "creationTimestamp": "2026-11-22T10:00:00Z",
            "ownerReferences": [{"kind": "Job", "name": JOB}],
        },
        "spec": {"active": active},
        "status": {"conditions": kinds, "schedulingStats": stats, **status},
    }


ON_HOLD = (
    "On hold: an administrator has deactivated its Workload job-run-1-a1-1b2c3 in queue lab-a. It goes on once that is "
    "active again."
)
DEACTIVATED = ("Evicted", "True", "Deactivated", "The workload is deactivated")
REJECTED = (
    "Evicted",
    "True",
    "DeactivatedDueToAdmissionCheck",
    "The workload is deactivated due to Admission check(s): budget, were rejected",
)
RECLAIMED = (
    ("Evicted", "True", "Preempted", "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to reclamation"),
    ("Preempted", "True", "InCohortReclamation", "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to"),
    ("QuotaReserved", "False", "Pending", NO_ROOM),
)


def job(*, suspend, queue="lab-a"):
    labels = {"cellsparse.dev/run": "run-1", "cellsparse.dev/attempt": "1", "kueue.x-k8s.io/queue-name": queue}
    return {"metadata": {"name": JOB, "uid": "u", "labels": labels}, "spec": {"suspend": suspend}}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "Waiting for Kueue to take it into queue lab-a."),
        (workload(), "Waiting for quota of queue lab-a."),
        (workload(("QuotaReserved", "False", "Pending", NO_ROOM)), f"Waiting for quota of queue lab-a: {NO_ROOM}."),
        (
            workload(("QuotaReserved", "False", "Inadmissible", "LocalQueue lab-a doesn't exist")),
            "Waiting for quota of queue lab-a: LocalQueue lab-a doesn't exist.",
        ),
        (workload(("QuotaReserved", "True", "QuotaReserved", "")), "Queue lab-a has admitted it."),
        (
            workload(
                ("QuotaReserved", "True", "QuotaReserved", ""),
                admissionChecks=[{"name": "budget", "state": "Pending"}, {"name": "nodes", "state": "Ready"}],
            ),
            "Waiting for the checks of queue lab-a: budget.",
        ),
        (
            workload(
                ("QuotaReserved", "True", "QuotaReserved", ""),
                admissionChecks=[{"name": "budget", "state": "Retry", "message": "Nobody has agreed."}],
            ),
            "Waiting for the checks of queue lab-a: budget (Nobody has agreed).",
        ),
        (workload(DEACTIVATED, active=False), ON_HOLD),
        (workload(active=False), ON_HOLD),
        (
            workload(DEACTIVATED, ("QuotaReserved", "False", "Pending", NO_ROOM)),  # and active again
            f"Waiting for quota of queue lab-a: {NO_ROOM}.",
        ),
        (
            workload(REJECTED, active=False),
            "Kueue does not start it any more: The workload is deactivated due to Admission check(s): budget, were "
            "rejected.",
        ),
        (
            workload(("DeactivationTarget", "True", "MaximumExecutionTimeExceeded", "It took too long"), active=False),
            "Kueue does not start it any more: It took too long.",
        ),
    ],
)
def test_what_a_job_waits_for(found, sentence):
    assert waits_for("lab-a", found and project_workload(found)) == sentence


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "Preempted by Kueue in queue lab-a."),
        (
            workload(*RECLAIMED),
            "Preempted by Kueue in queue lab-a: the quota that it had borrowed is needed by the queue that owns it.",
        ),
        (
            workload(("Evicted", "True", "Preempted", ""), ("Preempted", "True", "ANewReason", "It is so.")),
            "Preempted by Kueue in queue lab-a.",
        ),
        (
            workload(("Evicted", "False", "QuotaReserved", "Previously: Preempted to"), evictions=1),
            "Preempted by Kueue in queue lab-a.",
        ),
        (
            workload(("Evicted", "True", "ClusterQueueStopped", "The ClusterQueue is stopped")),
            "Evicted by Kueue from queue lab-a: The ClusterQueue is stopped.",
        ),
        (workload(DEACTIVATED, active=False), ON_HOLD),
    ],
)
def test_why_a_place_was_taken_back(found, sentence):
    assert preempted("lab-a", found and project_workload(found)) == sentence


def test_pods_that_end_while_their_job_is_suspended_are_no_failure():
    ended = {"terminated": {"exitCode": 143, "reason": "Error"}}
    pod = project_pod(
        {
            "metadata": {"name": f"{JOB}-0-x", "creationTimestamp": "2026-11-22T10:00:00Z", "deletionTimestamp": "now"},
            "status": {"containerStatuses": [{"image": "unet:1", "state": ended}]},
        }
    )
    found, said = project_job(job(suspend=True)), project_workload(workload(*RECLAIMED))
    waits = judge(found, [pod], said)
    assert (waits.waiting, waits.no_quota, waits.ended, waits.no_room) == (True, True, False, False)
    assert waits.message.startswith("Waiting for quota of queue lab-a")
    begun = judge(found, [pod], said, begun=True)
    assert (begun.ended, begun.reason) == (True, common_pb2.FAILURE_REASON_EVICTED)
    assert begun.message.startswith("Preempted by Kueue in queue lab-a")


def test_a_job_that_kueue_gave_up_is_stuck():
    given_up = project_workload(workload(REJECTED, active=False))
    found = judge(project_job(job(suspend=True)), [], given_up)
    assert (found.stuck, found.waiting, found.reason) == (True, False, common_pb2.FAILURE_REASON_UNSCHEDULABLE)


def test_a_job_that_is_on_hold_waits_and_lets_others_of_its_project_begin():
    found = judge(project_job(job(suspend=True)), [], project_workload(workload(DEACTIVATED, active=False)))
    assert (found.stuck, found.waiting, found.no_quota, found.message) == (False, True, False, ON_HOLD)


class Answers:
    """The API server: a Job, its Workloads, or an outage."""

    def __init__(self, monkeypatch):
        self.job, self.items = job(suspend=False), []
        self.workloads = Workloads("ns", client.ApiClient(), ObjectCache(job_of, lambda _: None))
        monkeypatch.setattr(workloads, "call", self.call)

    def call(self, work, *args, **options):
        if isinstance(self.job, Exception):
            raise self.job
        body = {"items": self.items} if "label_selector" in options else self.job
        return None if body is None else type("Answer", (), {"data": json.dumps(body)})


@pytest.fixture
def answers(monkeypatch):
    return Answers(monkeypatch)


def test_a_suspended_job_was_preempted(answers):
    answers.job, answers.items = job(suspend=True), [workload(*RECLAIMED, evictions=1)]
    assert answers.workloads.preemption(JOB).startswith("Preempted by Kueue in queue lab-a: the quota")


def test_a_job_that_was_admitted_again_was_preempted_too(answers):
    answers.items = [workload(("Evicted", "False", "QuotaReserved", "Previously"), evictions=1)]
    assert answers.workloads.preemption(JOB) == "Preempted by Kueue in queue lab-a."


def test_an_eviction_before_the_attempt_began_explains_nothing(answers):
    answers.items = [workload(("Evicted", "False", "QuotaReserved", "Previously"), evictions=1)]
    answers.workloads._cache.put(project_workload(answers.items[0]))
    answers.workloads.accepted(JOB)
    assert answers.workloads.preemption(JOB) == ""
    answers.items = [workload(("Evicted", "False", "QuotaReserved", "Previously"), evictions=2)]
    assert answers.workloads.preemption(JOB) != ""
    answers.workloads.forget(JOB)


def test_a_job_of_an_attempt_that_was_put_on_hold_stays_until_its_workload_is_active_again(answers):
    answers.job, answers.items = job(suspend=True), [workload(DEACTIVATED, active=False)]
    assert answers.workloads.preemption(JOB) == ON_HOLD
    assert answers.workloads.forget(JOB)
    assert not answers.workloads.forget(JOB)
    answers.workloads._cache.put(project_workload(answers.items[0]))
    assert answers.workloads.hold(JOB, "lab-a") == ON_HOLD
    answers.workloads._cache.put(project_workload(workload(DEACTIVATED)))
    assert answers.workloads.hold(JOB, "lab-a") == ""
    assert answers.workloads.hold("another", "lab-a") == ""


def test_a_person_who_deactivated_it_and_changed_her_mind_costs_no_attempt(answers):
    back = workload(("Evicted", "False", "QuotaReserved", "Previously"))
    back["status"]["schedulingStats"] = {"evictions": [{"reason": "Deactivated", "underlyingCause": "", "count": 1}]}
    answers.items = [back]
    assert answers.workloads.preemption(JOB) != ""
    back["status"]["schedulingStats"]["evictions"][0]["underlyingCause"] = "MaximumExecutionTimeExceeded"
    assert answers.workloads.preemption(JOB) == ""


@pytest.mark.parametrize(
    ("found", "items"),
    [
        (job(suspend=False), [workload(("QuotaReserved", "True", "QuotaReserved", ""))]),
        (job(suspend=False), []),
        (job(suspend=True, queue=""), []),
        (None, []),
        (Unavailable("The Kubernetes API does not answer."), []),
        (
            job(suspend=True),
            [workload(("Evicted", "True", "DeactivatedDueToRequeuingLimitExceeded", "Too often"), active=False)],
        ),
        (job(suspend=True), [workload(("Evicted", "True", "PodsReadyTimeout", "Exceeded the PodsReady timeout"))]),
    ],
)
def test_what_was_not_preempted_counts(answers, found, items):
    answers.job, answers.items = found, items
    assert answers.workloads.preemption(JOB) == ""


def test_workloads_are_watched_by_their_jobs():
    with serving_api() as (script, url):
        script.page(workload(*RECLAIMED), version=1)
        configuration = client.Configuration(host=url)
        cache = ObjectCache(job_of, lambda _: None)
        there = Workloads("ns", client.ApiClient(configuration), cache)
        there.watch.start()
        end = time.monotonic() + PATIENCE
        while there.of_job(JOB) is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        there.watch.stop()
    assert there.of_job("another") is None
