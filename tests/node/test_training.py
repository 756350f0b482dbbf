"""A training in real pods: queued, on a GPU of the node, its container killed, resumed; the result of a workstation."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, state_names, until
from support.real_node.cluster import NAMESPACE
from support.real_node.layers import ONE_THREAD
from support.real_node.training import newest_checkpoint, start
from support.tiny_dataset import blobs

from cellsparse import Client
from cellsparse.runs import Run
from cellsparse_proto.v1 import common_pb2

STEPS, CHECKPOINT = 400, 20
"""The container is killed when that checkpoint is in the store; the one before it has been named the newest by then."""


def outcome(client: Client, run: Run, path: Path) -> tuple[dict[str, str], np.ndarray]:
    """Return the hashes of the exported files, and what the model finds in another image."""
    client.export(run.id, "native", path)
    with zipfile.ZipFile(path) as archive:
        found = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    weights = {name: value for name, value in found.items() if not name.endswith((".md", ".json"))}
    assert weights, list(found)
    return weights, client.predict(run.id, blobs(80, seed=9)[0])


def test_a_killed_container_is_resumed_and_the_model_is_that_of_a_workstation(
    release, in_cluster, tmp_path, monkeypatch
):
    run, events, killed = start(in_cluster, steps=STEPS), [], []
    for event in run.watch():
        events.append(event)
        if killed or event.training.checkpoint_step < CHECKPOINT:
            continue
        if newest_checkpoint(release, run) >= CHECKPOINT:
            killed.append(training_pod(release, run.id))
            release.kill(killed[0])
    ended = run.info()
    assert (ended.state, ended.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 2), ended.message
    assert state_names(events) == ["QUEUED", "STARTING", "RUNNING", "RETRYING", "STARTING", "RUNNING", "SUCCEEDED"]
    assert "code 137" in next(event.message for event in events if event.state == common_pb2.RUN_STATE_RETRYING)
    again = min(event.training.step for event in events if event.attempt == 2 and event.training.losses)
    assert again > CHECKPOINT - 2  # it went on where the checkpoint was
    found = outcome(in_cluster, run, tmp_path / "cluster.zip")

    for name in release.environment():  # the cluster's; the workstation has no certificates
        monkeypatch.delenv(name)
    with Orchestrator(tmp_path / "home", CELLSPARSE_TRAINER_MODULES="unet=cellsparse_unet", **ONE_THREAD) as local:
        local.healthy("unet")
        with Client(local.address) as client:
            same = start(client, steps=STEPS)
            same.wait()
            expected = outcome(client, same, tmp_path / "local.zip")
    assert found[0] == expected[0]
    assert np.array_equal(found[1], expected[1])
    until(lambda: not [pod for pod in release.pods("training") if pod.metadata.name.startswith(run.id)], PATIENCE)


def training_pod(release, run_id: str) -> str:
    """Return the name of a run's pod, which has the node's GPU."""
    pods = release.core.list_namespaced_pod(NAMESPACE).items
    (pod,) = [pod for pod in pods if pod.metadata.name.startswith(run_id)]
    assert pod.spec.containers[0].resources.limits["nvidia.com/gpu"] == "1"
    return pod.metadata.name
