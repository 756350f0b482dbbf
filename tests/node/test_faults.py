"""What goes wrong on real nodes: memory, images, the network, upgrades. No run is lost, and each says what happened."""

import secrets
import time
from typing import Any

import pytest
from kubernetes.client import ApiException, AppsV1Api, PolicyV1Api
from support.control_plane import new_namespace
from support.limits import LONG_PATIENCE, PATIENCE
from support.orchestrator import state_names, until
from support.real_node import network
from support.real_node.cluster import NAME, NAMESPACE, VALUES
from support.real_node.training import LONG, disturbed, newest_checkpoint, start, watched

from cellsparse import Client
from cellsparse.errors import Unauthenticated
from cellsparse.runs import Run
from cellsparse_proto.v1 import common_pb2

AWAY_SECONDS = 180
"""How long a node stays away once the control plane has noticed: longer than the 30 s that a training's pod bears."""
SHUT_DOWN = "The trainer was shut down; a checkpoint was written."
"""What a run says whose pod was evicted."""
EVICTED = 'The pod was evicted from node1: Usage of EmptyDir volume "scratch" exceeds the limit "2Gi".'
"""What it says if its trainer could not say so any more."""
REACH = """
import socket, sys, time
end = time.monotonic() + 15  # a new pod's address becomes known to policies within seconds
missing = set(sys.argv[1:])
while missing and time.monotonic() < end:
    for place in list(missing):
        host, port = place.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), 3).close()
            missing.remove(place)
        except OSError as error:
            print(place, error, file=sys.stderr)
    time.sleep(1)
for place in sys.argv[1:]:
    print(place, "not reached" if place in missing else "reached")
"""


def test_too_little_memory_ends_with_the_reason(release, in_cluster):
    """The kernel kills the container, as the kubelet set its limit: 3 GiB."""
    ended = watched(start(in_cluster, base_channels=64, batch_size=64, crop_size=512, steps=2))
    assert ended.state == common_pb2.RUN_STATE_FAILED
    assert ended.reason == common_pb2.FAILURE_REASON_OUT_OF_MEMORY
    assert "Memory ran out with batch 64 and crop 512" in ended.message


def test_too_much_on_disk_evicts_the_pod_and_the_run_goes_on(release, in_cluster):
    """The kubelet evicts a pod that keeps more in its scratch folder than the 2 GiB that it asked for.

    It gives the pod one second, which may be too short for the trainer to write a checkpoint and say so.
    """
    run, pods = start(in_cluster, **LONG), []

    def fill():
        pods.append(pod_of(release, run))
        command = ("dd", "if=/dev/zero", "of=/tmp/full", "bs=1M", "count=2200")
        assert release.run_in(pods[0], *command)[0] == 0

    events = disturbed(run, fill, attempt=2)
    (retrying,) = [event for event in events if event.state == common_pb2.RUN_STATE_RETRYING]
    assert SHUT_DOWN in retrying.message or EVICTED in retrying.message
    seen = release.core.list_namespaced_event(NAMESPACE, field_selector=f"involvedObject.name={pods[0]}").items
    assert "Evicted" in [each.reason for each in seen]


def test_an_image_that_is_not_there_ends_with_the_reason(release, in_cluster):
    """The node has no image of StarDist's trainer, and pulls none."""
    ended = watched(start(in_cluster, backend="stardist"))
    assert ended.state == common_pb2.RUN_STATE_FAILED
    assert "cellsparse-trainer-stardist:node" in ended.message


def test_strangers_do_not_reach_the_store_or_the_trainers(release, cluster):
    """From another namespace nothing of the release is reached; from its own, only what clients speak to."""
    store, trainer = (f"{NAME}-{name}.{NAMESPACE}.svc" for name in ("minio", "unet"))
    gateway, outside = f"{NAME}-gateway.{NAMESPACE}.svc:8000", "kubernetes.default.svc:443"
    asked = [f"{store}:9000", f"{trainer}:50052", gateway, outside]
    assert reached(release, NAMESPACE, asked) == [False, False, True, True]
    with new_namespace(cluster.admin) as other:
        assert reached(release, other, asked) == [False, False, False, True]


def test_a_node_that_is_away_for_a_while_loses_no_run(release, in_cluster):
    def be_away():
        network.set_cable(1, up=False)
        until(lambda: not ready(release), PATIENCE)
        time.sleep(AWAY_SECONDS)
        network.set_cable(1, up=True)

    events = disturbed(start(in_cluster, **LONG), be_away, attempt=2)
    assert "RETRYING" in state_names(events)
    until(lambda: ready(release), PATIENCE)


def test_an_upgrade_with_new_certificates_loses_no_run(release, in_cluster):
    """Every upgrade signs certificates anew; this one also starts a new orchestrator."""
    before = release.secret(f"{NAME}-tls-orchestrator", "tls.crt")

    def upgrade():
        release.install({**VALUES, "orchestrator": {**VALUES["orchestrator"], "gangSeconds": 61}})

    events = disturbed(start(in_cluster, **LONG), upgrade, attempt=1)
    assert release.secret(f"{NAME}-tls-orchestrator", "tls.crt") != before
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def test_new_keys_of_the_store_and_a_new_administrator_lose_no_run(release, in_cluster):
    """The Secrets are changed and all pods but the training's started anew; it goes on with credentials of the new key.

    Whoever watches has a token of their own, which stays.
    """
    old = release.secret(f"{NAME}-admin", "token")
    new = f"cellsparse_{secrets.token_urlsafe(32)}"
    made = in_cluster.create_token("watcher", "admin")
    before = release.secret(f"{NAME}-store", "secretKey")

    kept = []

    def rotate():
        release.set_secret(f"{NAME}-store", secretKey=secrets.token_hex(20))
        release.set_secret(f"{NAME}-admin", token=new)
        release.restart()
        kept.append(newest_checkpoint(release, run))
        until(lambda: newest_checkpoint(release, run) > kept[0], LONG_PATIENCE)  # the training's, with its new key

    with Client(token=made.secret) as watcher:
        run = start(watcher, **LONG)
        events = disturbed(run, rotate, attempt=1)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        again = start(watcher)  # reads and writes the store with the new key
        assert watched(again).state == common_pb2.RUN_STATE_SUCCEEDED
    assert release.secret(f"{NAME}-store", "secretKey") != before
    with Client(token=new) as administrator:
        administrator.status()
        assert next(iter(administrator.tokens())).name == "watcher"
    with Client(token=old) as gone, pytest.raises(Unauthenticated):
        list(gone.tokens())


def test_a_drained_node_takes_no_new_pods_and_runs_go_on_afterwards(release, in_cluster):
    """A training's pod is evicted as `kubectl drain` does; the run waits, and resumes once a node takes pods again."""
    run = start(in_cluster, **LONG)

    def drain():
        release.core.patch_node("node1", {"spec": {"unschedulable": True}})
        evict(release, pod_of(release, run))

    def allow_again(event):
        if event.state == common_pb2.RUN_STATE_STARTING and event.attempt == 2:
            release.core.patch_node("node1", {"spec": {"unschedulable": None}})

    events = disturbed(run, drain, attempt=2, see=allow_again)
    (retrying,) = [event for event in events if event.state == common_pb2.RUN_STATE_RETRYING]
    assert SHUT_DOWN in retrying.message


def test_a_drain_leaves_one_of_two_gateways(release):
    release.install({**VALUES, "gateway": {"replicas": 2}})
    first, second = (pod.metadata.name for pod in release.pods("gateway"))
    release.core.patch_node("node1", {"spec": {"unschedulable": True}})
    try:
        evict(release, first)
        until(lambda: budget(release).status.current_healthy == 1, PATIENCE)
        with pytest.raises(ApiException) as refused:
            evict(release, second)
        assert refused.value.status == 429
    finally:
        release.core.patch_node("node1", {"spec": {"unschedulable": None}})
        release.install(VALUES)


def test_a_deleted_orchestrator_comes_back_and_the_training_has_gone_on(release, in_cluster):
    def delete():
        (pod,) = release.pods("orchestrator")
        release.core.delete_namespaced_pod(pod.metadata.name, NAMESPACE)

    events = disturbed(start(in_cluster, **LONG), delete, attempt=1)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    apps = AppsV1Api(release.cluster.admin)
    until(lambda: apps.read_namespaced_deployment(f"{NAME}-orchestrator", NAMESPACE).status.ready_replicas, PATIENCE)


def pod_of(release, run: Run) -> str:
    """Return the name of the pod that a run trains in."""
    (pod,) = [pod for pod in release.pods("trainer") if pod.metadata.name.startswith(run.id)]
    return str(pod.metadata.name)


def ready(release) -> bool:
    """Whether the control plane takes the node for Ready."""
    conditions = release.core.read_node("node1").status.conditions
    return any(each.type == "Ready" and each.status == "True" for each in conditions)


def budget(release) -> Any:
    """Return the gateways' PodDisruptionBudget."""
    return PolicyV1Api(release.cluster.admin).read_namespaced_pod_disruption_budget(f"{NAME}-gateway", NAMESPACE)


def evict(release, pod: str) -> None:
    """Evict a pod as `kubectl drain` does."""
    body = {"metadata": {"name": pod, "namespace": NAMESPACE}}
    release.core.create_namespaced_pod_eviction(pod, NAMESPACE, body)


def reached(release, namespace: str, places: list[str]) -> list[bool]:
    """Return which of the places, host:port, a pod without the release's labels reaches."""
    image = "localhost/cellsparse-orchestrator:node"
    security = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "stranger",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", REACH, *places],
        "securityContext": security,
    }
    pod = {"metadata": {"name": "stranger"}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    release.core.create_namespaced_pod(namespace, pod)
    until(lambda: release.core.read_namespaced_pod("stranger", namespace).status.phase == "Succeeded", LONG_PATIENCE)
    log = release.core.read_namespaced_pod_log("stranger", namespace)
    lines = [line for line in log.splitlines() if line.endswith("reached")]
    release.core.delete_namespaced_pod("stranger", namespace, grace_period_seconds=0)
    return [not line.endswith("not reached") for line in lines]
