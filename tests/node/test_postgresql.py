"""The chart as labs run it, on a real node: PostgreSQL in a pod, and two orchestrators, of which one leads."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.limits import LONG_PATIENCE
from support.orchestrator import until
from support.real_node.cluster import NAME, VALUES, Release
from support.real_node.images import POSTGRESQL
from support.real_node.training import LONG, disturbed, start

from cellsparse import Client
from cellsparse_proto.v1 import common_pb2

POSTGRES = {"image": POSTGRESQL, "storage": "1Gi", "resources": {"requests": {"cpu": "50m"}}}
SHARED = {
    **VALUES,
    "database": {"kind": "postgresql", "postgresql": POSTGRES},
    "orchestrator": {**VALUES["orchestrator"], "replicas": 2},
}


@pytest.fixture(scope="module")
def shared(cluster) -> Iterator[Release]:
    """A release of its own, beside the one with SQLite."""
    found = Release(cluster, "shared")
    found.install(SHARED)
    yield found
    found.helm("uninstall", "lab", "--wait")  # others need its place


@pytest.fixture
def client(shared, monkeypatch):
    for name, value in shared.environment().items():
        monkeypatch.setenv(name, value)
    with Client() as client:
        yield client


def ready(pod: Any) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or ())


def leaders(release: Release) -> list[str]:
    """Return the names of the orchestrators that answer: the one that stands by is not ready."""
    return [pod.metadata.name for pod in release.pods("orchestrator") if ready(pod)]


def test_the_standby_takes_over_and_the_training_has_gone_on(shared, client):
    def kill_the_leader():
        (first,) = leaders(shared)
        shared.core.delete_namespaced_pod(first, shared.namespace, grace_period_seconds=0)
        until(lambda: [name for name in leaders(shared) if name != first], LONG_PATIENCE)

    events = disturbed(start(client, **LONG), kill_the_leader, attempt=1)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def test_a_database_that_starts_anew_loses_no_run(shared, client):
    def restart():
        shared.kill(f"{NAME}-postgresql-0")
        until(lambda: all(map(ready, shared.pods("postgresql"))), LONG_PATIENCE)

    events = disturbed(start(client, **LONG), restart, attempt=1)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    done = start(client)
    done.wait()
    assert done.info().state == common_pb2.RUN_STATE_SUCCEEDED


def test_the_database_runs_as_its_own_user_on_a_read_only_root(shared):
    code, output = shared.run_in(
        f"{NAME}-postgresql-0", "sh", "-c", "id -u; touch /here; grep CapEff /proc/self/status"
    )
    assert output.split("\n")[0] == "999"
    assert "Read-only file system" in output
    assert "CapEff:\t0000000000000000" in output
    assert code == 0
