"""Runs as Jobs: a real API server, scheduler and Job controller, and an orchestrator with its own few rights."""

import pytest
from kubernetes.client import BatchV1Api, CoreV1Api
from kubernetes.client.exceptions import ApiException
from support.cluster import IMAGES, NAME, cluster_orchestrator, give_rights, left_behind, trainer
from support.limits import PATIENCE
from support.node_agent import NodeAgent
from support.orchestrator import state_names, until

from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

SLOW = {"learning_rate": 0.9, "patience": 0}  # the fake backend sleeps 0.05 s in every step; none ends early
NODES = {f"gpu-{number}": {"nvidia.com/gpu": "2"} for number in range(3)}
TRAINERS = [
    trainer("unet", node_lost_seconds=1),
    trainer("stardist", gpus=8, deadline_seconds=10),  # no node has as many
    trainer("cellpose", image="registry.test/nowhere:1"),
]
BACKENDS = {
    "unet": trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings()),
    "stardist": trainer_pb2.TrainingSettings(stardist=trainer_pb2.StardistSettings()),
    "cellpose": trainer_pb2.TrainingSettings(cellpose=trainer_pb2.CellposeSettings()),
}


@pytest.fixture(scope="module")
def agent(admin, shared_namespace, tmp_path_factory):
    with NodeAgent(admin, shared_namespace, tmp_path_factory.mktemp("nodes"), NODES, IMAGES) as started:
        yield started


@pytest.fixture(scope="module")
def start(control_plane, admin, shared_namespace, tmp_path_factory):
    """Makes an orchestrator to be started: always the same one, as after a restart."""
    give_rights(admin, shared_namespace)
    home = tmp_path_factory.mktemp("home")
    settings = {"trainers": TRAINERS, "stuck_seconds": 1}
    return lambda: cluster_orchestrator(control_plane, shared_namespace, home, settings, CELLSPARSE_SLOTS="6")


@pytest.fixture(scope="module")
def orchestrator(start, agent):
    with start() as started:
        yield started


@pytest.fixture(scope="module")
def dataset(orchestrator):
    return orchestrator.upload()


@pytest.fixture
def nothing_left(admin, shared_namespace):
    yield
    until(lambda: not left_behind(admin, shared_namespace))


def create(orchestrator, dataset, backend="unet", **settings):
    chosen = trainer_pb2.TrainingSettings(**settings)
    chosen.MergeFrom(BACKENDS[backend])
    request = orchestrator_pb2.CreateRunRequest(dataset_id=dataset.id, settings=chosen)
    return orchestrator.runs.CreateRun(request, timeout=PATIENCE).run


def trains(orchestrator, run, steps=3):
    """Wait until a run trains."""
    return until(lambda: (found := orchestrator.run(run.id)).progress.step >= steps and found, 2 * PATIENCE)


def pod_of(agent, run, attempt=1):
    return until(lambda: next((pod for pod in agent.pods() if pod.name.startswith(f"{run.id}-a{attempt}-")), None))


def ended(orchestrator, run):
    events = list(orchestrator.watch(run.id))
    return orchestrator.run(run.id), events


@pytest.mark.usefixtures("nothing_left")
def test_a_run_trains_in_a_job_and_leaves_nothing_behind(orchestrator, admin, shared_namespace, dataset):
    run = create(orchestrator, dataset, steps=30, **SLOW)
    trains(orchestrator, run)
    job = BatchV1Api(admin).read_namespaced_job(f"{run.id}-a1", shared_namespace)
    service = CoreV1Api(admin).read_namespaced_service(f"{run.id}-a1", shared_namespace)
    assert [owner.name for owner in job.metadata.owner_references] == [NAME]
    assert [owner.uid for owner in service.metadata.owner_references] == [job.metadata.uid]
    found, events = ended(orchestrator, run)
    assert (found.state, found.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 1)
    assert state_names(events) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    spec = (orchestrator.store / "runs" / run.id / "spec.json").read_text()
    assert '"numpy"' in spec  # the trainer's own versions, enough to run it again


@pytest.mark.usefixtures("nothing_left")
def test_no_node_fits_until_it_is_cancelled_or_the_deadline_is_over(orchestrator, dataset):
    sentence = "Waiting for a node: 0/3 nodes have nvidia.com/gpu free."
    run = create(orchestrator, dataset, "stardist")
    until(lambda: orchestrator.run(run.id).message == sentence)
    orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE)
    assert ended(orchestrator, run)[0].state == common_pb2.RUN_STATE_CANCELLED
    found, events = ended(orchestrator, create(orchestrator, dataset, "stardist"))
    assert sentence in [event.message for event in events]
    assert (found.state, found.reason) == (common_pb2.RUN_STATE_FAILED, common_pb2.FAILURE_REASON_USER_ERROR)
    assert "longer than the 10 s" in found.message
    assert found.attempts == 1


@pytest.mark.usefixtures("nothing_left")
def test_an_image_that_cannot_be_pulled(orchestrator, dataset):
    found, _ = ended(orchestrator, create(orchestrator, dataset, "cellpose"))
    assert (found.reason, found.attempts) == (common_pb2.FAILURE_REASON_UNSCHEDULABLE, 1)
    assert "The image registry.test/nowhere:1 cannot be pulled: Back-off" in found.message


@pytest.mark.usefixtures("nothing_left")
def test_out_of_memory_is_not_tried_again(orchestrator, dataset, agent):
    run = create(orchestrator, dataset, steps=2000, **SLOW)
    trains(orchestrator, run)
    agent.kill(pod_of(agent, run).name, why="OOMKilled")
    found, _ = ended(orchestrator, run)
    assert (found.reason, found.attempts) == (common_pb2.FAILURE_REASON_OUT_OF_MEMORY, 1)
    assert "memory" in found.message


def _evict(run, agent, core, namespace):
    pod = pod_of(agent, run).name
    core.create_namespaced_pod_eviction(pod, namespace, {"metadata": {"name": pod, "namespace": namespace}})


def _evict_as_a_kubelet(run, agent, core, namespace):
    message = "The node was low on resource: memory."
    agent.kill(pod_of(agent, run).name, reason="Evicted", message=message)


def _delete_pod(run, agent, core, namespace):
    core.delete_namespaced_pod(pod_of(agent, run).name, namespace)


def _kill(run, agent, core, namespace):
    agent.kill(pod_of(agent, run).name)


def _delete_job(run, agent, core, namespace):
    batch = BatchV1Api(core.api_client)
    batch.delete_namespaced_job(f"{run.id}-a1", namespace, propagation_policy="Background", grace_period_seconds=0)


@pytest.mark.usefixtures("nothing_left")
def test_what_another_attempt_overcomes(orchestrator, admin, shared_namespace, dataset, agent):
    """All at once, since most of the time is spent waiting."""
    lost, evicted = common_pb2.FAILURE_REASON_LOST, common_pb2.FAILURE_REASON_EVICTED
    expected = {
        _kill: ({lost}, "code 137"),
        _evict: ({evicted}, ""),
        _evict_as_a_kubelet: ({evicted}, "low on resource: memory"),
        # The trainer is told to end and says so itself, if its words still come through.
        _delete_pod: ({lost, evicted}, ""),
        _delete_job: ({lost, evicted}, ""),
    }
    runs = {disturb: create(orchestrator, dataset, steps=240, checkpoint_every_steps=5, **SLOW) for disturb in expected}
    waiting = dict(runs)

    def all_disturbed():
        """Disturb each as soon as it is far enough: one that started late must not let another reach its end."""
        for disturb, run in list(waiting.items()):
            if orchestrator.run(run.id).progress.step >= 12:
                disturb(run, agent, CoreV1Api(admin), shared_namespace)
                del waiting[disturb]
        return not waiting

    until(all_disturbed, 2 * PATIENCE)
    for disturb, run in runs.items():
        found, events = ended(orchestrator, run)
        assert (found.state, found.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 2), (disturb, found.message)
        retry = next(event for event in events if event.state == common_pb2.RUN_STATE_RETRYING)
        reasons, words = expected[disturb]
        assert retry.reason in reasons, (disturb, retry.message)
        assert words in retry.message
        steps = [event.training.step for event in events if event.attempt == 2 and event.training.losses]
        assert min(steps) > 5, disturb


@pytest.mark.usefixtures("nothing_left")
def test_a_lost_node_costs_one_attempt(orchestrator, dataset, agent):
    run = create(orchestrator, dataset, steps=60, **SLOW)
    trains(orchestrator, run)
    node = pod_of(agent, run).node
    agent.lose(node)
    found, events = ended(orchestrator, run)
    assert (found.state, found.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 2), found.message
    retry = next(event for event in events if event.state == common_pb2.RUN_STATE_RETRYING)
    assert retry.reason == common_pb2.FAILURE_REASON_LOST
    assert retry.message.startswith(f"The node {node} was lost.")
    agent.bring_back(node)  # else the pod stays for as long as the node might come back


@pytest.mark.usefixtures("nothing_left")
def test_cancel_ends_the_pod(orchestrator, dataset, agent):
    run = create(orchestrator, dataset, steps=2000, **SLOW)
    trains(orchestrator, run)
    process = pod_of(agent, run).process
    orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE)
    assert ended(orchestrator, run)[0].state == common_pb2.RUN_STATE_CANCELLED
    assert process.wait(PATIENCE) == 0  # told by SIGTERM, it ends in good order


def test_a_quota_says_so(orchestrator, admin, shared_namespace, dataset):
    core = CoreV1Api(admin)
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"requests.nvidia.com/gpu": "0"}}}
    core.create_namespaced_resource_quota(shared_namespace, quota)
    until(lambda: core.read_namespaced_resource_quota("none", shared_namespace).status.hard)
    run = create(orchestrator, dataset)
    until(lambda: "exceeded quota: none" in orchestrator.run(run.id).message)
    core.delete_namespaced_resource_quota("none", shared_namespace)
    orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE)
    assert ended(orchestrator, run)[0].state == common_pb2.RUN_STATE_CANCELLED


def test_the_service_account_may_do_no_more(control_plane, shared_namespace, start):
    api = control_plane.service_account_client(shared_namespace, NAME)
    core = CoreV1Api(api)
    forbidden = [
        lambda: core.list_namespaced_secret(shared_namespace),
        lambda: core.read_namespaced_secret("store", shared_namespace),
        lambda: core.list_namespaced_pod("default"),
        lambda: BatchV1Api(api).list_namespaced_job("default"),
        lambda: core.create_namespaced_pod(shared_namespace, {"metadata": {"name": "x"}, "spec": {"containers": []}}),
        lambda: core.list_node(),
        lambda: core.list_namespace(),
    ]
    for ask in forbidden:
        with pytest.raises(ApiException) as caught:
            ask()
        assert caught.value.status == 403
    assert BatchV1Api(api).list_namespaced_job(shared_namespace).items == []


def test_a_killed_orchestrator_adopts_its_jobs(start, orchestrator, admin, shared_namespace, dataset, agent):
    """Last, since it ends the orchestrator that all tests share."""
    kept, lost = (create(orchestrator, dataset, steps=100, checkpoint_every_steps=5, **SLOW) for _ in range(2))
    for run in (kept, lost):
        trains(orchestrator, run, steps=12)
    pod = pod_of(agent, kept).name
    orchestrator.kill()
    _delete_job(lost, agent, CoreV1Api(admin), shared_namespace)
    with start() as again:
        found, events = ended(again, kept)
        assert (found.state, found.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 1)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        trained = [event.training.sequence for event in events if event.HasField("training")]
        assert trained == list(range(1, len(trained) + 1))
        assert [one.name for one in agent.pods() if one.name.startswith(kept.id)] in ([], [pod])
        found, _ = ended(again, lost)
        assert (found.state, found.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 2)
        until(lambda: not left_behind(admin, shared_namespace))
