"""All trainings end before database and store go back to an earlier release."""

import pytest
from kubernetes import client
from support.kubernetes_api import serving_api, thing

from cellsparse_common.errors import FailedPrecondition
from cellsparse_orchestrator.launchers.kubernetes.end_all import end_all
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings

SETTINGS = ClusterSettings.model_validate({"namespace": "ns", "instance": "one", "trainers": []})
CHOSEN = "app.kubernetes.io/managed-by=cellsparse-orchestrator,app.kubernetes.io/instance=one"


@pytest.fixture
def cluster():
    """What plays the API server, and its client."""
    with serving_api() as (script, url):
        yield script, client.ApiClient(client.Configuration(host=url))


def pod(name, phase):
    return {**thing(name, 1), "spec": {"containers": []}, "status": {"phase": phase}}


def test_jobs_are_deleted_and_their_pods_waited_for(cluster):
    script, api = cluster
    script.page(thing("run-1-a1", 1), thing("run-2-a3", 1), version=1)
    script.page(pod("run-1-a1-0", "Running"), pod("run-2-a3-0", "Succeeded"), version=2)
    script.page(pod("run-2-a3-0", "Succeeded"), version=3)
    end_all(SETTINGS, api)
    assert [path.rpartition("/")[2] for path in script.deleted] == ["run-1-a1", "run-2-a3"]
    assert [query["labelSelector"] for query in script.asked] == [CHOSEN] * 3


def test_a_pod_that_does_not_end_is_named(cluster):
    script, api = cluster
    script.page(version=1)
    script.page(pod("run-1-a1-0", "Running"), version=2)
    with pytest.raises(FailedPrecondition, match="run-1-a1-0 have not ended in 0 s"):
        end_all(SETTINGS, api, seconds=0)
