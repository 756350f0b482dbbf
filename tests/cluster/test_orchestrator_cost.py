"""An orchestrator with hundreds of Jobs is at rest while they are, and asks the API server for no list."""

import pytest
from kubernetes import client
from support.cluster import cluster_orchestrator, give_rights, trainer
from support.limits import PATIENCE
from support.orchestrator import tiny_items
from support.orchestrator_cost import BEARS, counted, measure, queue_runs, wait_for_pods, wait_for_rest, wide_node

from cellsparse_proto.v1 import orchestrator_pb2

JOBS = 200
REST_SECONDS = 10.0
CORES = 0.1
GROWTH_MIB = 4.0


@pytest.fixture
def node(admin, namespace):
    with wide_node(admin, f"{namespace}-wide"):
        yield
    # No kubelet says that they ended, and the next test shares the controllers: they do not wait for a grace period.
    client.CoreV1Api(admin).delete_collection_namespaced_pod(namespace, grace_period_seconds=0)


@pytest.mark.usefixtures("node")
def test_at_rest_it_polls_nothing_and_after_a_restart_it_lists_once(control_plane, admin, namespace, tmp_path):
    give_rights(admin, namespace)
    settings = {"trainers": [trainer("unet", image="none", tolerations=BEARS)]}

    def start():
        return cluster_orchestrator(control_plane, namespace, tmp_path, settings, CELLSPARSE_SLOTS="1000")

    with start() as there:
        queue_runs(there, there.upload(tiny_items()).id, JOBS)
        wait_for_pods(admin, namespace, JOBS, PATIENCE)
        wait_for_rest(there.pid, CORES, PATIENCE)
        cost = measure(control_plane, namespace, there.pid, REST_SECONDS)
        print(f"\n{JOBS} Jobs: {cost}")
        polled = {kind: times for kind, times in cost.requests.items() if times and kind.startswith(("LIST", "GET"))}
        assert polled == {}
        assert cost.cores < CORES
        assert cost.growth_mib < GROWTH_MIB

    asked = {}
    with counted(control_plane, namespace, asked), start() as there:
        wait_for_rest(there.pid, CORES, PATIENCE)
        status = there.runs.GetStatus(orchestrator_pb2.GetStatusRequest(), timeout=PATIENCE)
        assert status.active_runs == JOBS
    assert asked["LIST jobs"] == asked["LIST pods"] == asked["LIST events"] == 1
    assert asked["POST jobs"] == asked["DELETE jobs"] == 0, "what is there is adopted"
