"""Kueue's real controller shares 4 GPUs between projects.

Quotas, borrowing, preemption, fair shares, admission checks, all nodes or none, and what an administrator puts on hold.
"""

import sqlite3
from contextlib import closing

import pytest
from kubernetes.client import BatchV1Api
from support.cluster import IMAGES, cluster_orchestrator, give_rights, left_behind, trainer
from support.kueue import GPU, Queues, running_kueue
from support.limits import PATIENCE
from support.node_agent import NodeAgent
from support.orchestrator import state_names, until

from cellsparse.cluster_check import judge, look
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

LABS = ("lab-a", "lab-b")
FAIR, CHECKED = ("fair-a", "fair-b"), "checked"
"""Two queues that own nothing and borrow from a third one; and one whose trainings need an admission check."""
OWNED, NODES = 2, 2
"""GPUs that each lab owns, and nodes with as many."""
SLOTS = 6
SLOW = {"learning_rate": 0.9, "patience": 0, "checkpoint_every_steps": 5}  # 0.05 s in every step
LONG = 100_000
"""Steps of a training that no machine ends before it is cancelled."""
ONCE = 1
"""Attempts of every run here: one that counted would end the run."""
SUCCEEDED, CANCELLED = common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_CANCELLED
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
RETRYING = common_pb2.RUN_STATE_RETRYING


@pytest.fixture(scope="module")
def queues(control_plane, admin, shared_namespace, tmp_path_factory):
    with running_kueue(control_plane, tmp_path_factory.mktemp("kueue")):
        made = Queues(admin, shared_namespace, dict.fromkeys(LABS, OWNED))
        fair = Queues(admin, shared_namespace, {**dict.fromkeys(FAIR, 0), "spare": OWNED}, cohort="fair")
        yield made
        fair.close()
        made.close()


@pytest.fixture(scope="module")
def checked(admin, shared_namespace, queues):
    made = Queues(admin, shared_namespace, {CHECKED: 1}, cohort=CHECKED, check="budget")
    yield made
    made.close()


@pytest.fixture(scope="module")
def agent(admin, shared_namespace, queues, tmp_path_factory):
    nodes = {f"kueue-{number}": {GPU: str(OWNED)} for number in range(NODES)}
    with NodeAgent(admin, shared_namespace, tmp_path_factory.mktemp("nodes"), nodes, IMAGES) as started:
        yield started


@pytest.fixture(scope="module")
def start(control_plane, admin, shared_namespace, tmp_path_factory):
    """Makes an orchestrator to be started: always the same one, as after a restart."""
    give_rights(admin, shared_namespace)
    home = tmp_path_factory.mktemp("home")
    settings = {
        "trainers": [trainer("unet", queue=LABS[0]), trainer("stardist", gpus=8, queue=LABS[0])],
        "project_queues": {f"pr-{queue}": queue for queue in (LABS[1], *FAIR, CHECKED)},
        "gang_seconds": 0.5,
        "fewer_nodes_seconds": 0.5,
    }
    return lambda: cluster_orchestrator(control_plane, shared_namespace, home, settings, CELLSPARSE_SLOTS=str(SLOTS))


@pytest.fixture(scope="module")
def orchestrator(start, agent):
    with start() as started:
        yield started


@pytest.fixture(scope="module")
def datasets(orchestrator):
    """One for each queue, of a project of its own; but for the first, whose project has none."""
    made = {queue: orchestrator.upload(name=queue).id for queue in (*LABS, *FAIR, CHECKED)}
    projects = [(f"pr-{queue}", dataset) for queue, dataset in made.items() if queue != LABS[0]]
    with closing(sqlite3.connect(orchestrator.home / "cellsparse.db", timeout=PATIENCE)) as database, database:
        database.executemany("UPDATE datasets SET project_id = ? WHERE id = ?", projects)
    return made


@pytest.fixture(autouse=True)
def nothing_left(admin, shared_namespace, queues):
    yield
    until(lambda: not left_behind(admin, shared_namespace))
    until(lambda: not queues.workloads())


def create(orchestrator, dataset, backend="unet", **settings):
    chosen = trainer_pb2.TrainingSettings(**SLOW, **settings)
    getattr(chosen, backend).SetInParent()
    request = orchestrator_pb2.CreateRunRequest(dataset_id=dataset, settings=chosen, max_attempts=ONCE)
    return orchestrator.runs.CreateRun(request, timeout=PATIENCE).run.id


def cancel(orchestrator, run_id):
    orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run_id), timeout=PATIENCE)


def trains(orchestrator, run_ids, steps=12):
    """Wait until all of some runs train."""
    until(lambda: all(orchestrator.run(one).progress.step >= steps for one in run_ids), 2 * PATIENCE)


def ended(orchestrator, run_id):
    watch = orchestrator_pb2.WatchRunRequest(run_id=run_id)
    events = [answer.event for answer in orchestrator.runs.WatchRun(watch, timeout=4 * PATIENCE)]
    return orchestrator.run(run_id), events


def retried(events):
    """Check that an attempt went on where the checkpoint was; return the event that says why there is a second one."""
    assert min(event.training.step for event in events if event.attempt == 2 and event.training.losses) > 5
    return next(event for event in events if event.state == RETRYING)


def test_who_borrowed_is_preempted_when_the_owner_comes_and_goes_on_later(
    orchestrator, datasets, queues, admin, shared_namespace
):
    """Lab a takes all 4 GPUs, of which it owns 2; its runs that wait leave slots to lab b, which gets its 2 back.

    Kueue knows only the second in which Jobs were made, so any four of the first ones may train.
    """
    made = [create(orchestrator, datasets["lab-a"], steps=LONG) for _ in range(SLOTS + 1)]
    borrowers = until(lambda: _training(orchestrator, made, OWNED * NODES), 2 * PATIENCE)
    others = [one for one in made[:SLOTS] if one not in borrowers]
    for one in others:
        until(lambda one=one: "Waiting for quota of queue lab-a: " in orchestrator.run(one).message)
    assert orchestrator.run(made[SLOTS]).state == common_pb2.RUN_STATE_QUEUED
    jobs = BatchV1Api(admin)
    running, waiting = (jobs.read_namespaced_job(f"{one[0]}-a1", shared_namespace) for one in (borrowers, others))
    assert running.metadata.labels[QUEUE_LABEL] == waiting.metadata.labels[QUEUE_LABEL] == "lab-a"
    assert (running.spec.suspend, waiting.spec.suspend, waiting.status.active) == (False, True, None)

    owners = [create(orchestrator, datasets["lab-b"], steps=60) for _ in range(OWNED)]
    for one in (*others, made[SLOTS]):
        cancel(orchestrator, one)
        assert ended(orchestrator, one)[0].state == CANCELLED
    for one in owners:
        found, events = ended(orchestrator, one)
        assert (found.state, found.attempts) == (SUCCEEDED, 1), found.message
        assert state_names(events) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]

    preempted = [one for one in borrowers if orchestrator.run(one).attempts == 2]
    assert len(preempted) == OWNED
    until(lambda: all(_trains_again(orchestrator.run(one)) for one in preempted), 2 * PATIENCE)
    for one in borrowers:
        cancel(orchestrator, one)
        found, events = ended(orchestrator, one)
        assert (found.state, found.attempts) == (CANCELLED, 2 if one in preempted else 1)
        if one in preempted:
            retry = retried(events)
            assert retry.reason == common_pb2.FAILURE_REASON_EVICTED
            assert retry.message.startswith("Preempted by Kueue in queue lab-a: the quota that it had borrowed")
            said = [event.message for event in events if event.attempt == 2]
            assert any(words.startswith("Waiting for quota of queue lab-a: ") for words in said), said


def _training(orchestrator, run_ids, count, steps=12):
    """Return the runs that train, once there are as many as that."""
    found = [one for one in run_ids if orchestrator.run(one).progress.step >= steps]
    return found if len(found) == count else None


def _trains_again(run):
    return run.state == common_pb2.RUN_STATE_RUNNING and run.progress.step > 12


def test_queues_that_borrow_the_same_gpus_get_equal_shares(orchestrator, datasets):
    """Queue fair-a has borrowed both spare GPUs; fair-b gets one of them, and not both."""
    first = [create(orchestrator, datasets["fair-a"], steps=LONG) for _ in range(OWNED)]
    trains(orchestrator, first)
    second = [create(orchestrator, datasets["fair-b"], steps=LONG) for _ in range(OWNED)]
    until(lambda: [one for one in second if orchestrator.run(one).progress.step], 2 * PATIENCE)
    (preempted,) = until(lambda: [one for one in first if orchestrator.run(one).attempts == 2])
    until(lambda: "Waiting for quota of queue fair-a: " in orchestrator.run(preempted).message)
    until(lambda: any("Waiting for quota of queue fair-b: " in orchestrator.run(one).message for one in second))
    for one in (*first, *second):
        cancel(orchestrator, one)
    events = ended(orchestrator, preempted)[1]
    (why,) = [event.message for event in events if event.state == RETRYING]
    assert why.startswith("Preempted by Kueue in queue fair-a: another queue of the cohort has less than its fair")
    assert sorted(ended(orchestrator, one)[0].attempts for one in (*first, *second)) == [1, 1, 1, 2]


def test_an_admission_check_holds_a_training_back_and_says_so(orchestrator, datasets, checked):
    run_id = create(orchestrator, datasets[CHECKED], steps=10)
    until(lambda: "Waiting for the checks of queue checked: budget" in orchestrator.run(run_id).message)
    checked.answer(run_id, "Pending", "The head of the lab has not agreed yet.")
    said = "Waiting for the checks of queue checked: budget (The head of the lab has not agreed yet)."
    until(lambda: orchestrator.run(run_id).message == said)
    checked.answer(run_id, "Ready")
    found, _ = ended(orchestrator, run_id)
    assert (found.state, found.attempts) == (SUCCEEDED, 1), found.message


def test_what_an_administrator_deactivates_goes_on_when_it_is_active_again(orchestrator, datasets, queues):
    def on_hold(attempt):
        run = orchestrator.run(run_id)
        return run.attempts == attempt and run.message.startswith("On hold: an administrator has deactivated")

    run_id = create(orchestrator, datasets["lab-b"], steps=LONG)
    trains(orchestrator, [run_id])
    queues.activate(run_id, active=False)
    until(lambda: on_hold(attempt=2))
    other = create(orchestrator, datasets["lab-b"], steps=10)
    assert ended(orchestrator, other)[0].state == SUCCEEDED
    assert on_hold(attempt=2)
    queues.activate(run_id, active=True)
    until(lambda: _trains_again(orchestrator.run(run_id)), 2 * PATIENCE)
    queues.activate(run_id, active=False)
    until(lambda: on_hold(attempt=3))
    cancel(orchestrator, run_id)
    found, events = ended(orchestrator, run_id)
    assert (found.state, found.attempts) == (CANCELLED, 3)
    assert retried(events).message.startswith("On hold: an administrator has deactivated its Workload ")


def test_a_run_that_is_too_large_waits_in_words_until_it_is_cancelled(orchestrator, datasets, queues):
    run_id = create(orchestrator, datasets["lab-a"], "stardist", steps=10)
    message = until(lambda: GPU in (said := orchestrator.run(run_id).message) and said)
    assert message.startswith("Waiting for quota of queue lab-a: ")
    queues.activate(run_id, active=False)
    until(lambda: orchestrator.run(run_id).message.startswith("On hold: an administrator has deactivated"))
    queues.activate(run_id, active=True)
    until(lambda: orchestrator.run(run_id).message.startswith("Waiting for quota of queue lab-a: "))
    cancel(orchestrator, run_id)
    found, events = ended(orchestrator, run_id)
    assert (found.state, found.attempts) == (CANCELLED, 1)
    assert "RUNNING" not in state_names(events)


def test_the_check_of_a_cluster_looks_at_its_queues(control_plane, shared_namespace, queues):
    kubeconfig = str(control_plane.kubeconfig("admin"))

    def levels():
        found = judge(look(shared_namespace, kubeconfig=kubeconfig), queues=["lab-a", "lab-c"])[-2:]
        said = [one.sentence for one in found]
        return "has no quota for cpu, memory, which" in said[0] and "has no LocalQueue lab-c" in said[1]

    until(levels)
    queues.hold("lab-a", stopped=True)
    until(lambda: look(shared_namespace, kubeconfig=kubeconfig).queues["lab-a"].problem)
    queues.hold("lab-a", stopped=False)
    until(lambda: not look(shared_namespace, kubeconfig=kubeconfig).queues["lab-a"].problem)


def test_all_nodes_or_none(orchestrator, datasets, agent, queues):
    """2 nodes of 2 GPUs: with one GPU taken no pod is made, and nothing is given back and tried again."""
    small = create(orchestrator, datasets["lab-b"], steps=LONG)
    trains(orchestrator, [small], steps=1)
    run_id = create(orchestrator, datasets["lab-a"], steps=10, nodes=NODES, processes_per_node=OWNED)
    until(lambda: "Waiting for quota" in orchestrator.run(run_id).message)
    workload = queues.workload(run_id)
    assert not [pod for pod in agent.pods() if pod.name.startswith(run_id)]
    cancel(orchestrator, small)

    def pods():
        found = [pod for pod in agent.pods() if pod.name.startswith(run_id)]
        return len(found) == NODES and found

    assert {pod.node for pod in until(pods)} == {f"kueue-{number}" for number in range(NODES)}
    assert queues.workload(run_id)["metadata"]["uid"] == workload["metadata"]["uid"]
    cancel(orchestrator, run_id)
    assert ended(orchestrator, run_id)[0].state == CANCELLED
    assert ended(orchestrator, small)[0].state == CANCELLED


def test_a_preempted_training_goes_on_with_fewer_nodes_that_the_quota_has_room_for(orchestrator, datasets, queues):
    """Lab a has all 4 GPUs for 2 nodes until lab b wants one; 3 are left, which is a node and a half."""
    run_id = create(orchestrator, datasets["lab-a"], steps=LONG, nodes=NODES, min_nodes=1, processes_per_node=OWNED)
    trains(orchestrator, [run_id])
    assert orchestrator.run(run_id).nodes == NODES
    small = create(orchestrator, datasets["lab-b"], steps=LONG)
    trains(orchestrator, [small], steps=1)
    until(lambda: _trains_again(orchestrator.run(run_id)) and orchestrator.run(run_id).attempts == 2, 2 * PATIENCE)
    assert orchestrator.run(run_id).nodes == 1
    (workload,) = [one for one in queues.workloads() if run_id in one["metadata"]["ownerReferences"][0]["name"]]
    assert [pods["count"] for pods in workload["spec"]["podSets"]] == [1]
    for one in (run_id, small):
        cancel(orchestrator, one)
    found, events = ended(orchestrator, run_id)
    assert (found.state, found.attempts) == (CANCELLED, 2)
    assert retried(events).message.startswith("Preempted by Kueue in queue lab-a")
    said = next(event.message for event in events if "goes on with" in event.message)
    assert said.startswith("Attempt 2 goes on with 1 of 2 nodes, since no more can be had now: Waiting for quota")
    assert ended(orchestrator, small)[0].state == CANCELLED


def test_evicted_and_admitted_again_while_no_orchestrator_was_there(start, orchestrator, datasets, agent, queues):
    """Its Job then has a pod that knows nothing of the attempt. Last, since it ends the shared orchestrator."""
    run_id = create(orchestrator, datasets["lab-b"], steps=400)
    trains(orchestrator, [run_id])
    (first,) = [pod.name for pod in agent.pods() if pod.name.startswith(run_id)]
    orchestrator.kill()
    queues.hold("lab-b", stopped=True)
    until(lambda: not [pod for pod in agent.pods() if pod.name.startswith(run_id)])
    queues.hold("lab-b", stopped=False)
    until(lambda: [pod for pod in agent.pods() if pod.name.startswith(run_id) and pod.name != first])
    with start() as again:
        found, events = ended(again, run_id)
        assert (found.state, found.attempts) == (SUCCEEDED, 2), found.message
        assert retried(events).message.startswith("Preempted by Kueue in queue lab-b")
