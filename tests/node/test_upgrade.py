"""From the last release to this one and back on a real node, by helm, while a pod of the last release trains."""

from collections.abc import Sequence

import numpy as np
import pytest
from support.helm import CHART
from support.limits import LONG_PATIENCE
from support.orchestrator import until
from support.real_node.cluster import VALUES, Cluster, Release, find_docker, released_images
from support.real_node.training import LONG, UNDER_WAY, start, watched
from support.release import unpack_release
from support.tiny_dataset import blobs

from cellsparse import Client
from cellsparse.runs import Run
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

SUCCEEDED = common_pb2.RUN_STATE_SUCCEEDED
SMALL = {"gateway": {"resources": {"requests": {"cpu": "50m"}}}}
"""The node has few cores, and another release."""
BEFORE = {
    **{name: VALUES[name] for name in ("minio", "trainerDefaults")},
    "images": {**VALUES["images"], "tag": "released"},
    "orchestrator": {"serviceType": "NodePort", "resources": {"requests": {"cpu": "200m"}}},  # beside a training
    "trainers": [{"backend": "unet"}],
}
AFTER = {**BEFORE, "images": VALUES["images"], "auth": {"kind": "off"}, "tls": {"kind": "none"}, **SMALL}
"""As docs/operations/upgrade.md says it for clients that have no tokens yet."""
EXACT = {"precision": "float32"}
"""In which both releases compute the same."""
OVER_THE_UPGRADE = 180
"""Seconds for which a training goes on that is to begin before an upgrade and to end after it."""
IMAGE = blobs(80, seed=9)[0]


@pytest.fixture
def installed(cluster: Cluster) -> Release:
    """The last release's chart and images, in a namespace of its own."""
    unpack_release()
    if not released_images(find_docker()):
        pytest.skip("Docker has no images of the last release; `make node-images` makes them")
    found = Release(cluster, "upgraded")
    found.install(BEFORE, unpack_release().folder / "helm" / "cellsparse")
    return found


def test_an_upgrade_from_the_last_release_while_it_trains_and_the_way_back(installed):
    with Client(installed.address()) as client:
        first = start(client, **{**LONG, "steps": 200}, **EXACT)
        pace = steps_a_second(list(first.watch()))
        found = client.predict(first.id, IMAGE)
        upgrade(installed, client, max(200, int(pace * OVER_THE_UPGRADE)))
        assert np.array_equal(client.predict(first.id, IMAGE), found)
        unended = start(client, **LONG, **EXACT)
        until(lambda: unended.info().progress.step >= UNDER_WAY, LONG_PATIENCE)
        ended = {run.id: run.state for run in client.runs() if run.id != unended.id}
        datasets = sorted(dataset.id for dataset in client.datasets())

        told = go_back(installed, unended)
        assert "1 runs that had begun wait in the queue again, and 1 of them begin anew" in told
        assert sorted(dataset.id for dataset in client.datasets()) == datasets
        assert {run.id: run.state for run in client.runs() if run.id != unended.id} == ended
        assert np.array_equal(client.predict(first.id, IMAGE), found)
        until(lambda: unended.info().progress.step >= UNDER_WAY, LONG_PATIENCE)
        unended.cancel()
        assert watched(start(client, **EXACT)).state == SUCCEEDED


def steps_a_second(events: Sequence[orchestrator_pb2.RunEvent]) -> float:
    """Return how fast a training has been."""
    made = [event.training for event in events if event.training.losses]
    seconds = [each.time.seconds + each.time.nanos / 1e9 for each in (made[0], made[-1])]
    return (made[-1].step - made[0].step) / max(seconds[1] - seconds[0], 1e-3)


def upgrade(release: Release, client: Client, steps: int) -> None:
    """Upgrade under a training, which goes on in its pod and succeeds, and one that waits for its GPU."""
    training = start(client, **{**LONG, "steps": steps}, **EXACT)
    waiting = start(client, **EXACT)
    events: list[orchestrator_pb2.RunEvent] = []
    upgraded = False
    for event in training.watch():
        events.append(event)
        if event.training.step >= UNDER_WAY and not upgraded:
            release.install(AFTER)
            upgraded = True
    ended = training.info()
    assert (ended.state, ended.attempts) == (SUCCEEDED, 1), ended.message
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert watched(waiting).state == SUCCEEDED


def go_back(release: Release, training: Run) -> str:
    """Go back under a training, as docs/operations/upgrade.md says; return what the Job has printed."""
    timeout = f"--timeout={LONG_PATIENCE:.0f}s"
    back = f"--set=rollback.to={unpack_release().name},rollback.lose=true"
    release.helm("upgrade", "lab", str(CHART), "--reuse-values", back, timeout)
    (pod,) = release.pods("rollback")
    told = release.core.read_namespaced_pod_log(pod.metadata.name, release.namespace)
    until(lambda: not release.pods_of(training), LONG_PATIENCE)
    release.helm("rollback", "lab", "1", "--wait", timeout)
    return str(told)
