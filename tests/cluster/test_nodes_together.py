"""One training on several nodes: an Indexed Job of as many pods, all of them or none."""

import sys
from contextlib import ExitStack

import pytest
from kubernetes.client import BatchV1Api, NetworkingV1Api
from support.cluster import cluster_orchestrator, give_rights, left_behind, trainer
from support.limits import PATIENCE
from support.node_agent import NodeAgent
from support.orchestrator import state_names, until

from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

ONE_GPU = {"nvidia.com/gpu": "1"}
IMAGES = {"unet": [sys.executable, "-m", "cellsparse_unet"]}
TINY = trainer_pb2.TrainingSettings(
    unet=trainer_pb2.UnetSettings(base_channels=4),
    batch_size=1,
    crop_size=32,
    checkpoint_every_steps=2,
    seed=3,
)
STEPS = 60
CLOSE = 0.05
"""Of the loss and the scores, absolute: float32 is added up in another order, which the optimizer magnifies."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def orchestrator(control_plane, admin, namespace, tmp_path):
    give_rights(admin, namespace)
    settings = {"trainers": [trainer("unet", image="unet")], "rank_policies": True}
    settings |= {"gang_seconds": 1.0, "fewer_nodes_seconds": 1.0}
    with cluster_orchestrator(control_plane, namespace, tmp_path / "home", settings, CELLSPARSE_SLOTS="6") as there:
        yield there


def nodes(admin, namespace, folder, names):
    folder.mkdir()
    return NodeAgent(admin, namespace, folder, dict.fromkeys(names, ONE_GPU), IMAGES, environment=ONE_THREAD)


def create(orchestrator, dataset_id, count, steps, **others):
    settings = trainer_pb2.TrainingSettings(nodes=count, steps=steps, validate_every_steps=steps)
    settings.MergeFrom(TINY)
    settings.MergeFrom(trainer_pb2.TrainingSettings(**others))
    request = orchestrator_pb2.CreateRunRequest(dataset_id=dataset_id, settings=settings)
    return orchestrator.runs.CreateRun(request, timeout=PATIENCE).run.id


def watch(orchestrator, run_id):
    request = orchestrator_pb2.WatchRunRequest(run_id=run_id)
    return (answer.event for answer in orchestrator.runs.WatchRun(request, timeout=4 * PATIENCE))


def test_a_pod_of_two_is_lost_and_the_next_attempt_goes_on(orchestrator, admin, namespace, tmp_path):
    dataset = orchestrator.upload().id
    with nodes(admin, namespace, tmp_path / "nodes", ["one", "two"]) as agent:
        run_id = create(orchestrator, dataset, 2, steps=300)
        events, killed = [], []
        for event in watch(orchestrator, run_id):
            events.append(event)
            if event.training.step >= 4 and not killed:
                both = sorted(pod.name for pod in agent.pods())
                assert [pod.node for pod in agent.pods()] != ["one", "one"]
                assert len(both) == 2
                assert BatchV1Api(admin).read_namespaced_job(f"{run_id}-a1", namespace).spec.completions == 2
                policy = NetworkingV1Api(admin).read_namespaced_network_policy(f"{run_id}-a1", namespace)
                assert policy.spec.pod_selector.match_labels["cellsparse.dev/attempt"] == "1"
                killed.append(both[1])  # that of index 1
                agent.kill(both[1])
        run = orchestrator.run(run_id)
        assert (run.state, run.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 2), run.message
        assert min(event.training.step for event in events if event.attempt == 2 and event.training.losses) > 2
        until(lambda: not left_behind(admin, namespace))


def test_all_nodes_or_none(orchestrator, admin, namespace, tmp_path):
    """With room for one of two pods the place is given back, and the run begins when there is room for both."""
    dataset = orchestrator.upload().id
    jobs = BatchV1Api(admin)
    with nodes(admin, namespace, tmp_path / "first", ["one"]):
        run_id = create(orchestrator, dataset, 2, steps=4)
        made = until(lambda: [job.metadata.uid for job in jobs.list_namespaced_job(namespace).items])
        again = until(
            lambda: [uid for job in jobs.list_namespaced_job(namespace).items if (uid := job.metadata.uid) not in made]
        )
        assert len(again) == 1
        run = orchestrator.run(run_id)
        assert run.state == common_pb2.RUN_STATE_STARTING
        assert run.attempts == 1
        with nodes(admin, namespace, tmp_path / "second", ["two"]):
            events = list(watch(orchestrator, run_id))
            assert state_names(events)[-1] == "SUCCEEDED", events[-1].message
            assert any("of 2 pods have a node" in event.message for event in events)
            assert orchestrator.run(run_id).attempts == 1
            until(lambda: not left_behind(admin, namespace))  # without their node's agent, pods go a minute later


def test_a_node_is_gone_for_good_and_the_training_goes_on_with_the_other(orchestrator, admin, namespace, tmp_path):
    """It ends as a training does that has both nodes' crops on one from the start."""
    dataset, jobs = orchestrator.upload().id, BatchV1Api(admin)
    alike = {"rate_scaling": trainer_pb2.RATE_SCALING_NONE, "learning_rate": 1e-4, "patience": 0}
    with nodes(admin, namespace, tmp_path / "first", ["one"]):
        sizes = {}
        with ExitStack() as second:
            second.enter_context(nodes(admin, namespace, tmp_path / "second", ["two"]))
            run_id = create(orchestrator, dataset, 2, STEPS, min_nodes=1, **alike)
            events = []
            for event in watch(orchestrator, run_id):
                events.append(event)
                if event.training.step >= 4 and not sizes:
                    sizes[event.attempt] = orchestrator.run(run_id).nodes
                    second.close()
                if event.attempt == 2 and event.training.losses and 2 not in sizes:
                    made = jobs.read_namespaced_job(f"{run_id}-a2", namespace)
                    sizes[2] = orchestrator.run(run_id).nodes
                    assert (made.spec.completions, made.spec.parallelism) == (1, 1)
        run = orchestrator.run(run_id)
        assert (run.state, run.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 2), run.message
        assert sizes == {1: 2, 2: 1}
        assert any(event.message.startswith("Attempt 2 goes on with 1 of 2 nodes") for event in events)
        assert min(event.training.step for event in events if event.attempt == 2 and event.training.losses) > 2
        undisturbed = create(orchestrator, dataset, 1, STEPS, batch_size=2, **alike)
        expected = list(watch(orchestrator, undisturbed))
        assert dict(events[-1].training.validation) == pytest.approx(dict(expected[-1].training.validation), abs=CLOSE)
        assert last_loss(events) == pytest.approx(last_loss(expected), abs=CLOSE)
        until(lambda: not left_behind(admin, namespace))


def last_loss(events):
    """The loss of the last steps that were reported."""
    return [event.training.losses["loss"] for event in events if event.training.losses][-1]
