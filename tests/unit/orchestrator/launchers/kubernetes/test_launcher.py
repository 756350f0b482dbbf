"""What a run reports when the API server does not create its Job."""

import time

import pytest
from kubernetes import client
from support.kubernetes_api import serving_api
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_common.errors import Unavailable
from cellsparse_orchestrator.launchers.kubernetes.kueue import project_workload
from cellsparse_orchestrator.launchers.kubernetes.launcher import KubernetesLauncher
from cellsparse_orchestrator.launchers.kubernetes.projections import project_job
from cellsparse_orchestrator.launchers.kubernetes.reasons import Verdict
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings
from cellsparse_orchestrator.launchers.static import static_launcher
from cellsparse_proto.v1 import common_pb2

STUCK_SECONDS = 0.3
SETTINGS = ClusterSettings.model_validate(
    {
        "namespace": "ns",
        "instance": "one",
        "stuck_seconds": STUCK_SECONDS,
        "trainers": [{"backend": "unet", "image": "unet:1", "port": 50054}],
    }
)
UNSCHEDULABLE = common_pb2.FAILURE_REASON_UNSCHEDULABLE


@pytest.fixture
def api():
    with serving_api() as (script, url):
        for _ in ("jobs", "pods", "events"):
            script.page(version=1)
        script.url = url
        yield script


def made(api, settings=SETTINGS):
    configuration = client.Configuration(host=api.url)
    configuration.retries = 0
    return KubernetesLauncher(settings, client.ApiClient(configuration), static_launcher({}, ""))


@pytest.fixture
def launcher(api):
    started = made(api)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def queued(api):
    """A launcher whose Jobs go through Kueue; `queued.deleted` are the Jobs that it has deleted."""
    api.page(version=1)
    started = made(api, SETTINGS.model_copy(update={"project_queues": {"": "lab-a"}}))
    started.deleted = []
    started._jobs_api.delete_namespaced_job = lambda name, *_, **__: started.deleted.append(name)
    started.start()
    assert all(watch.complete.wait(PATIENCE) for watch in started._all_watches())
    yield started
    started.stop()


def first_attempt(launcher, *, active):
    """Let the first attempt's Job be there, suspended, with a Workload that is active or not."""
    labels = {"cellsparse.dev/run": "run-1", "cellsparse.dev/attempt": "1", "kueue.x-k8s.io/queue-name": "lab-a"}
    job = {"metadata": {"name": "run-1-a1", "uid": "1", "labels": labels}, "spec": {"suspend": True}}
    launcher._jobs.put(project_job(job))
    owner = {"kind": "Job", "name": "run-1-a1"}
    metadata = {"name": "job-run-1", "creationTimestamp": "2026-11-22T10:00:00Z", "ownerReferences": [owner]}
    launcher._workloads._cache.put(project_workload({"metadata": metadata, "spec": {"active": active}}))


def test_the_next_attempt_waits_while_an_administrator_holds_the_run_back(queued):
    first_attempt(queued, active=False)
    waits = queued.ensure("unet", "run-1", 2)
    assert (waits.waiting, waits.no_quota, waits.missing) == (True, False, False)
    assert waits.message.startswith("On hold: an administrator has deactivated its Workload job-run-1 in queue lab-a.")
    assert queued.keep_only(lambda: {("run-1", 2)}, lambda: {"run-1"})
    assert queued.keep_only(set, lambda: {"run-1"}), "it waits for its next attempt"
    assert not queued.deleted
    first_attempt(queued, active=True)
    assert queued.ensure("unet", "run-1", 2).message == "Waiting for the end of attempt 1."
    until(lambda: queued.deleted == ["run-1-a1"])


def test_what_holds_a_run_back_goes_with_the_run(queued):
    first_attempt(queued, active=False)
    assert queued.keep_only(set, set)
    until(lambda: queued.deleted == ["run-1-a1"])
    queued.release("run-1", 2)
    until(lambda: queued.deleted == ["run-1-a1", "run-1-a1", "run-1-a2"])


def test_a_full_quota_is_waited_for_as_room(api, launcher):
    api.posted = (403, "jobs.batch is forbidden: exceeded quota: few, used: count/jobs.batch=4")
    found = launcher.ensure("unet", "run-1", 1)
    time.sleep(2 * STUCK_SECONDS)
    for service in (found, launcher.ensure("unet", "run-1", 1)):
        assert (service.missing, service.waiting, service.no_room) == (False, True, True)
        assert "exceeded quota: few" in service.message


@pytest.mark.parametrize("code", [401, 500])
def test_an_api_server_that_does_not_know_us_now_is_waited_for(api, launcher, code):
    api.posted = (code, "")
    launcher.ensure("unet", "run-1", 1)
    time.sleep(2 * STUCK_SECONDS)
    service = launcher.ensure("unet", "run-1", 1)
    assert (service.missing, service.waiting) == (False, True)
    assert f"The Kubernetes API answers {code}" in service.message


def test_a_right_that_is_missing_ends_the_attempt_after_a_while(api, launcher):
    api.posted = (403, "jobs.batch is forbidden: no RBAC policy matched")
    service = launcher.ensure("unet", "run-1", 1)
    assert (service.missing, service.waiting, service.no_room) == (False, True, False)
    assert 0 < service.again_seconds <= STUCK_SECONDS
    time.sleep(2 * STUCK_SECONDS)
    service = launcher.ensure("unet", "run-1", 1)
    assert (service.missing, service.waiting, service.reason) == (True, False, UNSCHEDULABLE)
    assert "no RBAC policy matched" in service.message


def test_a_job_that_can_never_be_made_ends_the_attempt_at_once(api, launcher):
    api.posted = (422, "Job is invalid")
    service = launcher.ensure("unet", "run-1", 1)
    assert (service.missing, service.waiting) == (True, False)
    assert "Job is invalid" in service.message


def test_a_job_without_its_service_is_completed(api, launcher, monkeypatch):
    asked = []

    def create(request):
        asked.append(request.name)
        if len(asked) == 1:
            raise Unavailable("The Kubernetes API answers 500.")

    monkeypatch.setattr(launcher._creator, "create", create)
    assert "answers 500" in launcher.ensure("unet", "run-1", 1).message
    labels = {"cellsparse.dev/run": "run-1", "cellsparse.dev/attempt": "1"}
    launcher._jobs.put(project_job({"metadata": {"name": "run-1-a1", "uid": "1", "labels": labels}}))
    for _ in range(3):
        assert launcher.ensure("unet", "run-1", 1).message == "Waiting for its pod."
    assert asked == ["run-1-a1"] * 2


def test_a_job_that_is_gone_as_soon_as_its_nodes_are_released_is_made_again(api, monkeypatch):
    launcher = made(api, SETTINGS.model_copy(update={"gang_seconds": 0.0}))  # so that the random pause is none
    asked = []
    monkeypatch.setattr(launcher._creator, "create", lambda request: asked.append(request.name))
    launcher.start()
    try:
        launcher.ensure("unet", "run-1", 1)
        launcher._gangs.look("run-1-a1", Verdict(waiting=True, in_part=True, message="1 of 2 pods have a node."))
        launcher.ensure("unet", "run-1", 1)
        assert asked == ["run-1-a1"] * 2
    finally:
        launcher.stop()
