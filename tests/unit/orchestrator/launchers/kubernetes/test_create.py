"""What is made for an attempt is made once; what is there already is taken as it is; few are made at the same time."""

import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from types import SimpleNamespace

import pytest
from kubernetes.client.exceptions import ApiException
from support.limits import PATIENCE

from cellsparse_common.errors import FailedPrecondition, Unavailable
from cellsparse_orchestrator.launchers.base import Size
from cellsparse_orchestrator.launchers.kubernetes import create
from cellsparse_orchestrator.launchers.kubernetes.create import JobCreator
from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings

SETTINGS = ClusterSettings.model_validate(
    {"namespace": "ns", "instance": "one", "trainers": [{"backend": "unet", "image": "unet:1", "port": 50054}]}
)
REQUEST = JobRequest(run_id="run-1", backend="unet", attempt=2)


class Cluster:
    """Stands in for the client's classes."""

    def __init__(self):
        self.made = []
        self.there = {}
        self.refuse = None
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.slow = 0.0
        self.go_on = threading.Event()
        self.go_on.set()

    def _create(self, kind, body):
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.slow)
        assert self.go_on.wait(PATIENCE)
        with self.lock:
            self.at_once -= 1
        if self.refuse is not None:
            raise self.refuse
        key = (kind, body["metadata"]["name"])
        if key in self.there:
            raise ApiException(status=409, reason="Conflict")
        self.made.append(key)
        self.there[key] = SimpleNamespace(metadata=SimpleNamespace(uid=f"uid-{len(self.made)}"), body=body)
        return self.there[key]

    def _read(self, kind, name):
        if (kind, name) not in self.there:
            raise ApiException(status=404, reason="Not Found")
        return self.there[kind, name]

    def create_namespaced_job(self, namespace, body, **options):
        return self._create("job", body)

    def read_namespaced_job(self, name, namespace, **options):
        return self._read("job", name)

    def create_namespaced_service(self, namespace, body, **options):
        return self._create("service", body)

    def read_namespaced_service(self, name, namespace, **options):
        return self._read("service", name)

    def create_namespaced_network_policy(self, namespace, body, **options):
        return self._create("policy", body)

    def read_namespaced_network_policy(self, name, namespace, **options):
        return self._read("policy", name)


@pytest.fixture
def cluster():
    return Cluster()


def maker(cluster, **settings):
    return JobCreator(SETTINGS.model_copy(update=settings), cluster, cluster, cluster)


def test_the_service_belongs_to_the_job(cluster):
    maker(cluster).create(REQUEST)
    assert cluster.made == [("job", "run-1-a2"), ("service", "run-1-a2")]
    owners = cluster.there["service", "run-1-a2"].body["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == ["uid-1"]


def test_nodes_that_train_together_get_a_policy_of_their_own(cluster):
    several = replace(REQUEST, size=Size(nodes=2))
    maker(cluster, rank_policies=True).create(REQUEST)
    maker(cluster).create(replace(several, attempt=3))
    assert [kind for kind, _ in cluster.made] == ["job", "service"] * 2
    for _ in range(2):
        maker(cluster, rank_policies=True).create(replace(several, attempt=4))
    assert cluster.made[4:] == [("job", "run-1-a4"), ("service", "run-1-a4"), ("policy", "run-1-a4")]


def test_what_another_orchestrator_has_made_is_completed(cluster):
    maker(cluster).create(REQUEST)
    del cluster.there["service", "run-1-a2"]
    maker(cluster).create(REQUEST)
    assert cluster.made == [("job", "run-1-a2"), ("service", "run-1-a2"), ("service", "run-1-a2")]


def test_a_refusal_that_is_no_conflict_is_told(cluster):
    cluster.refuse = ApiException(status=403, reason="Forbidden")
    cluster.refuse.body = '{"message": "jobs.batch is forbidden"}'
    with pytest.raises(FailedPrecondition, match=r"jobs\.batch is forbidden"):
        maker(cluster).create(REQUEST)
    assert cluster.made == []


def test_a_namespace_that_is_not_there_is_told(cluster):
    cluster.refuse = ApiException(status=404, reason="Not Found")
    with pytest.raises(FailedPrecondition, match="The namespace ns does not exist"):
        maker(cluster).create(REQUEST)


def test_an_owner_that_is_missing_is_told(cluster):
    with pytest.raises(FailedPrecondition, match="The Service nobody that Jobs should belong to does not exist"):
        maker(cluster, owner_service="nobody").create(REQUEST)
    assert cluster.made == []


def test_few_are_made_at_once(cluster):
    cluster.slow = 0.01
    made = maker(cluster)
    requests = [JobRequest(run_id=f"run-{number}", backend="unet", attempt=1) for number in range(40)]
    with ThreadPoolExecutor(40) as threads:
        list(threads.map(made.create, requests))
    assert len(cluster.made) == 80
    assert 1 < cluster.most_at_once <= 8


def test_a_creation_that_waits_too_long_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(create, "_SLOT_SECONDS", 0.05)
    cluster.go_on.clear()
    made = maker(cluster)
    with ThreadPoolExecutor(9) as threads:
        asked = [threads.submit(made.create, JobRequest(run_id=f"r{n}", backend="unet", attempt=1)) for n in range(9)]
        wait(asked, PATIENCE, return_when=FIRST_COMPLETED)
        cluster.go_on.set()
        failed = [one.exception() for one in asked if one.exception() is not None]
    assert [type(error) for error in failed] == [Unavailable]
