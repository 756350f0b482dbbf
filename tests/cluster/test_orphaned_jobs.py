"""An orchestrator that was killed leaves Jobs behind: the next one adopts those it knows and deletes the others."""

import time

import pytest
from kubernetes import client
from support.cluster import (
    NAME,
    TRAINER_PORT,
    cluster_orchestrator,
    folder_in_memory,
    give_rights,
    left_behind,
    trainer,
)
from support.limits import PATIENCE, QUICK
from support.orchestrator import tiny_items, until
from support.thread_nodes import ThreadNodes

from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest, job, service
from cellsparse_orchestrator.launchers.kubernetes.settings import read_settings
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

RUNNING, SUCCEEDED = common_pb2.RUN_STATE_RUNNING, common_pb2.RUN_STATE_SUCCEEDED


@pytest.fixture
def home(tmp_path):
    with folder_in_memory(tmp_path) as folder:
        yield folder


@pytest.fixture
def start(control_plane, admin, namespace, home):
    """Makes an orchestrator to be started: always the same one, as after a crash."""
    give_rights(admin, namespace)
    settings = {"trainers": [trainer("unet", image="tiny")]}
    return lambda: cluster_orchestrator(control_plane, namespace, home, settings)


def jobs(admin, namespace):
    return {found.metadata.name for found in client.BatchV1Api(admin).list_namespaced_job(namespace).items}


def leave_a_job(admin, settings, place):
    """Make the Job and Service of an attempt that no orchestrator knows; return the Job's name."""
    cluster = read_settings(settings)
    batch, core = client.BatchV1Api(admin), client.CoreV1Api(admin)
    made = batch.create_namespaced_job(cluster.namespace, job(place, cluster.trainers[0], cluster, None))
    core.create_namespaced_service(cluster.namespace, service(place, cluster.trainers[0], cluster, made.metadata.uid))
    return made.metadata.name


def test_what_is_known_is_adopted_and_what_is_not_is_deleted(start, admin, namespace, home):
    with ThreadNodes(admin, namespace, [f"{namespace}-gpu"], 4, TRAINER_PORT) as nodes:
        with start() as first:
            run = first.train(first.upload(tiny_items()).id, steps=100_000)
            until(lambda: first.run(run.id).state == RUNNING)
            first.kill()
        orphan = leave_a_job(admin, home / "cluster.yaml", JobRequest(run_id="run-nobodys", backend="unet", attempt=1))
        older = leave_a_job(admin, home / "cluster.yaml", JobRequest(run_id=run.id, backend="unet", attempt=7))
        stranger = {"metadata": {"name": "stranger", "labels": {"app.kubernetes.io/instance": NAME}}}
        template = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}
        stranger["spec"] = {"suspend": True, "template": {"spec": template}}
        client.BatchV1Api(admin).create_namespaced_job(namespace, stranger)
        assert jobs(admin, namespace) == {f"{run.id}-a1", orphan, older, "stranger"}

        with start() as second:
            until(lambda: jobs(admin, namespace) == {f"{run.id}-a1", "stranger"})
            for pod in nodes.pods.values():
                pod.trainer.finish()
            until(lambda: second.run(run.id).state == SUCCEEDED)
            until(lambda: jobs(admin, namespace) == {"stranger"})
            assert second.run(run.id).attempts == 1
        trained = [one for pod in nodes.pods.values() for one in pod.trainer.trainings]
        assert [(one.run_id, one.attempt) for one in trained] == [(run.id, 1)], "nothing was started twice"
        until(lambda: left_behind(admin, namespace) == ["job/stranger"])


def test_a_run_that_waits_for_a_node_is_cancelled_at_once_and_leaves_nothing(start, admin, namespace):
    """Without a node the pod waits for ever; cancelling must not."""
    with start() as there:
        run = there.train(there.upload(tiny_items()).id)
        until(lambda: "node" in there.run(run.id).message)
        began = time.monotonic()
        there.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE)
        until(lambda: there.run(run.id).state == common_pb2.RUN_STATE_CANCELLED)
        until(lambda: not left_behind(admin, namespace))
        assert time.monotonic() - began < QUICK
