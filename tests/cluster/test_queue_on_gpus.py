"""40 runs share 4 nodes of 2 GPUs each: nobody is overtaken, no GPU idles, a lost node costs only its own runs.

Control plane, orchestrator and the trainers' contract are real; the trainers only take time (see `thread_nodes`), so
that the idle times are what orchestrator, Job controller, garbage collector and scheduler need.
"""

import statistics
from dataclasses import dataclass

import pytest
from kubernetes import client
from support.cluster import (
    TRAINER_PORT,
    cluster_orchestrator,
    folder_in_memory,
    give_rights,
    left_behind,
    trainer,
)
from support.limits import PATIENCE, QUICK
from support.orchestrator import tiny_items, until
from support.thread_nodes import Pod, ThreadNodes

from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

RUNS, NODES, GPUS = 40, 4, 2
SLOTS = NODES * GPUS
URGENT = 3
LOST_AFTER = 10
"""Runs that have succeeded when a node is lost."""
STEPS = (200, 350, 275, 425, 300)
"""At 100 a second: so that GPUs do not become free at once."""
IDLE_SECONDS = 10.0
"""Five times as long as on an idle machine, and less than it takes to look again without news of a free GPU."""


@dataclass(frozen=True)
class History:
    """What happened."""

    runs: list[orchestrator_pb2.Run]
    """As they ended, in the order in which they were asked for."""
    events: dict[str, list[orchestrator_pb2.RunEvent]]
    nodes: ThreadNodes
    hit: list[str]
    """Ids of the runs that trained on the node that was lost."""
    left: list[str]
    """What there was in the namespace at the end."""


@pytest.fixture(scope="module")
def history(control_plane, admin, shared_namespace, tmp_path_factory):
    until(lambda: not _ending(admin), PATIENCE)
    give_rights(admin, shared_namespace)
    names = [f"{shared_namespace}-gpu-{number}" for number in range(NODES)]
    settings = {"trainers": [trainer("unet", image="tiny", node_lost_seconds=0)]}
    with (
        folder_in_memory(tmp_path_factory.mktemp("orchestrator")) as folder,
        ThreadNodes(admin, shared_namespace, names, GPUS, TRAINER_PORT) as nodes,
        cluster_orchestrator(control_plane, shared_namespace, folder, settings, CELLSPARSE_SLOTS=str(SLOTS)) as there,
    ):
        dataset = there.upload(tiny_items()).id
        ids = [_ask(there, dataset, number) for number in range(RUNS)]
        until(lambda: _trained(nodes) >= LOST_AFTER, PATIENCE)
        hit = [pod.run_id for pod in nodes.lose(names[1]) if not any(one.ended for one in pod.trainer.trainings)]
        until(lambda: _trained(nodes) == RUNS, PATIENCE)
        until(lambda: not _unfinished(there), PATIENCE)
        nodes.take_away(names[1])
        until(lambda: not left_behind(admin, shared_namespace))
        left = left_behind(admin, shared_namespace)
        yield History([there.run(one) for one in ids], {one: list(there.watch(one)) for one in ids}, nodes, hit, left)


def _ending(admin):
    """Namespaces of earlier tests whose removal still takes the controllers' time."""
    return [one for one in client.CoreV1Api(admin).list_namespace().items if one.status.phase == "Terminating"]


def _ask(there, dataset, number):
    request = orchestrator_pb2.CreateRunRequest(
        dataset_id=dataset,
        settings=trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), steps=STEPS[number % len(STEPS)]),
        priority=1 if number >= RUNS - URGENT else 0,
    )
    return there.runs.CreateRun(request, timeout=PATIENCE).run.id


def _trained(nodes):
    """How many runs have trained to the end. Nothing is asked of the orchestrator, which is being timed."""
    return len({one.run_id for pod in list(nodes.pods.values()) for one in pod.trainer.trainings if one.ended})


def _unfinished(there):
    going = [common_pb2.RUN_STATE_QUEUED, common_pb2.RUN_STATE_STARTING, common_pb2.RUN_STATE_RUNNING]
    request = orchestrator_pb2.ListRunsRequest(states=[*going, common_pb2.RUN_STATE_RETRYING])
    return there.runs.ListRuns(request, timeout=PATIENCE).runs


def test_all_runs_succeed(history):
    assert [(run.message, run.state) for run in history.runs] == [("", common_pb2.RUN_STATE_SUCCEEDED)] * RUNS


def test_never_more_pods_are_placed_than_there_are_gpus(history):
    assert max(history.nodes.placed.total) == SLOTS
    assert max(history.nodes.placed.fullest) == GPUS


def test_first_in_is_first_out_within_equal_priority(history):
    def begun(run):
        return next(event.time.ToNanoseconds() for event in history.events[run.id] if event.attempt == 1)

    order = sorted(history.runs, key=begun)
    for priority in (0, 1):
        wanted = [run.id for run in history.runs if run.priority == priority]
        assert [run.id for run in order if run.priority == priority] == wanted
    asked = max(run.created_at.ToNanoseconds() for run in history.runs)
    last = max(begun(run) for run in history.runs if run.priority == 1)
    overtaken = [run.id for run in history.runs if run.priority == 0 and asked < begun(run) < last]
    # Attempts that were being begun when the urgent ones were asked for are no fault.
    assert len(overtaken) < SLOTS, "urgent runs begin before all that did not begin yet"


def test_no_run_trains_long_before_an_older_one(history):
    began = {}
    for pod in history.nodes.pods.values():
        for training in pod.trainer.trainings:
            if training.attempt == 1:
                began[training.run_id] = training.began
    waiting = [began[run.id] for run in history.runs if run.priority == 0]
    for place, moment in enumerate(waiting):
        later = sum(other < moment - 0.5 for other in waiting[place + 1 :])
        assert later < SLOTS, f"run {place} was overtaken by {later} younger ones"


def test_a_lost_node_costs_its_own_runs_one_attempt(history):
    assert 1 <= len(history.hit) <= GPUS
    assert {run.id: run.attempts for run in history.runs if run.attempts != 1} == dict.fromkeys(history.hit, 2)
    for run_id in history.hit:
        retried = next(one for one in history.events[run_id] if one.state == common_pb2.RUN_STATE_RETRYING)
        assert retried.reason == common_pb2.FAILURE_REASON_LOST
        assert "-gpu-1 was lost" in retried.message


def test_gpus_do_not_idle_between_runs(history):
    pods = list(history.nodes.pods.values())
    parts = _idle_parts(pods)
    print(_timeline(pods))
    print(f"\n{len(parts['in all'])} times a GPU went from one run to the next; seconds:")
    for name, seconds in parts.items():
        print(f"{name:50} median {statistics.median(seconds):.2f}, longest {max(seconds):.2f}")
    assert len(parts["in all"]) >= RUNS - SLOTS - GPUS
    assert statistics.median(parts["in all"]) < IDLE_SECONDS
    assert max(parts["in all"]) < QUICK


def test_nothing_is_left(history):
    assert history.left == []


def _timeline(pods: list[Pod]) -> str:
    """What happened to each pod, in seconds after the first was bound; for the reader of a failure."""
    first = min(pod.bound for pod in pods)
    lines = []
    for pod in sorted(pods, key=lambda pod: pod.bound):
        trained = [moment for one in pod.trainer.trainings for moment in (one.began, one.ended)]
        moments = [pod.seen, pod.bound, pod.running, *trained[:2], pod.told_to_end, pod.gone]
        shown = " ".join(f"{moment - first:7.2f}" if moment else "      -" for moment in moments)
        lines.append(f"{pod.name:28} {pod.node[-5:]} {pod.gpu} {shown}")
    head = "seen, bound, running, training from, to, told to end, gone"
    return "\n".join(["", head, *lines])


def _idle_parts(pods: list[Pod]) -> dict[str, list[float]]:
    parts: dict[str, list[float]] = {}
    for pod in pods:
        ended = max((one.ended for one in pod.trainer.trainings), default=0.0)
        later = [one for one in pods if (one.node, one.gpu) == (pod.node, pod.gpu) and one.bound > pod.bound]
        heir = min(later, key=lambda one: one.bound, default=None)
        if not ended or heir is None or not heir.trainer.trainings:
            continue
        if heir.trainer.trainings[0].attempt > 1:
            continue  # a run of the lost node, which did not wait when this GPU became free
        began = heir.trainer.trainings[0].began
        for name, seconds in (
            ("in all", began - ended),
            ("last step to pod told to end", pod.told_to_end - ended),
            ("pod told to end to pod gone", pod.gone - pod.told_to_end),
            ("pod gone to next pod bound", heir.bound - pod.gone),
            ("bound to running", heir.running - heir.bound),
            ("running to training", began - heir.running),
        ):
            parts.setdefault(name, []).append(seconds)
    return parts
