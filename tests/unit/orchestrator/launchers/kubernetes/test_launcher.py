"""What a run reports when the API server does not create its Job."""

import time

import pytest
from kubernetes import client
from support.kubernetes_api import serving_api

from cellsparse_common.errors import Unavailable
from cellsparse_orchestrator.launchers.kubernetes.launcher import KubernetesLauncher
from cellsparse_orchestrator.launchers.kubernetes.projections import project_job
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


@pytest.fixture
def launcher(api):
    configuration = client.Configuration(host=api.url)
    configuration.retries = 0
    started = KubernetesLauncher(SETTINGS, client.ApiClient(configuration), static_launcher({}, ""))
    started.start()
    yield started
    started.stop()


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
