"""The simulated cluster of `make bench-simulate`: its accounting, its launcher, and the ideal it is compared with."""

import time
from dataclasses import replace

import pytest
from simulation.figures import endings, idle_gaps
from simulation.ideal import ideal_delays, ideal_end
from simulation.launcher import BACKEND, SimulatedLauncher
from simulation.pool import Pool, Seat
from simulation.scenario import Scenario, from_json
from support.limits import PATIENCE

from cellsparse_orchestrator.launchers.base import ONE, Size
from cellsparse_proto.v1 import common_pb2

SCENARIO = Scenario(
    nodes=1,
    gpus=1,
    runs=2,
    run_seconds=1.0,
    start_seconds=0.05,
    event_seconds=1.0,
    node_mtbf_seconds=0.0,
    repair_seconds=0.1,
    eviction_share=0.0,
    compression=1.0,
)


def test_gpus_are_taken_and_given_back():
    pool = Pool(2, 2)
    seats = [pool.take(ONE) for _ in range(5)]
    assert seats[4] is None
    assert pool.free == 0
    assert len({(seat.node, seat.gpus) for found in seats[:4] for seat in found}) == 4
    pool.give_back(seats[1])
    assert pool.take(ONE) == seats[1]


def test_a_gang_gets_all_its_nodes_or_none():
    pool = Pool(3, 2)
    assert pool.take(Size(nodes=1, processes=2)) == (Seat(node=0, gpus=(0, 1)),)
    assert pool.take(Size(nodes=3, processes=1)) is None
    assert pool.free == 4
    assert {seat.node for seat in pool.take(Size(nodes=2, processes=2))} == {1, 2}
    assert pool.free == 0


def test_a_lost_node_comes_back_empty():
    pool = Pool(2, 1)
    there, away = pool.take(ONE), pool.take(ONE)
    pool.lose(away[0].node)
    pool.give_back(away)
    assert (pool.free, pool.take(ONE)) == (0, None)
    pool.restore(away[0].node)
    assert pool.take(ONE) == away
    pool.give_back(there)
    pool.give_back(there)
    assert pool.free == 1


def test_the_ideal_takes_a_slot_when_it_becomes_free():
    runs = [(0.0, 4.0), (0.0, 1.0), (0.5, 1.0), (9.0, 1.0)]
    assert ideal_delays(runs, 2) == [0.0, 0.0, 0.5, 0.0]
    assert ideal_end(runs, 2) == 10.0
    assert ideal_delays([(0.0, 1.0)] * 4, 4) == [0.0] * 4


def test_idle_gaps_leave_out_the_start_of_the_pod_and_the_time_when_nobody_waited():
    pods = [
        {"run_id": name, "attempt": 1, "seats": [{"node": 0, "gpus": [0]}], "placed": placed, "ready": placed + 1}
        for name, placed in (("a", 0.0), ("b", 11.5), ("c", 40.2))
    ]
    times = {"a": (1.0, 11.0), "b": (12.7, 20.0), "c": (41.3, 50.0)}
    trainings = [
        {"run_id": name, "attempt": 1, "began": began, "completed": end, "ended": 0.0}
        for name, (began, end) in times.items()
    ]
    assert idle_gaps(pods, trainings, {"a": 0.0, "b": 3.0, "c": 40.0}) == pytest.approx([0.7, 0.3])


def test_endings_find_what_was_lost_and_what_was_done_twice():
    runs = [{"id": name, "state": "SUCCEEDED", "attempts": 1, "ended_at": 1.0} for name in ("a", "b")]
    trainings = [{"run_id": "a", "attempt": number, "completed": 1.0, "ended": 0.0} for number in (1, 2)]
    found = endings(runs, trainings, [], asked=3)
    assert (found["lost"], found["succeeded_without_training"], found["trained_twice"]) == (1, 1, 1)


@pytest.fixture
def cluster(tmp_path):
    made, killed = [], []

    def make(**changes):
        scenario = from_json(replace(SCENARIO, **changes).to_json())
        launcher = SimulatedLauncher(scenario, 1234, lambda *key: killed.append(key), tmp_path / "pods.json")
        made.append(launcher)
        launcher.start()
        return launcher, killed

    yield make
    for launcher in made:
        launcher.stop()


def until(found):
    end = time.monotonic() + PATIENCE
    while not (answer := found()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return answer


def test_pods_are_scheduled_first_come_first_served(cluster):
    launcher, _ = cluster()
    notified = []
    launcher.subscribe("run-b", 1, lambda: notified.append("b"))
    assert launcher.ensure(BACKEND, "run-a", 1).waiting
    waits = launcher.ensure(BACKEND, "run-b", 1)
    assert (waits.no_room, waits.message) == (True, "Waiting for a free GPU.")
    assert until(lambda: launcher.find(BACKEND, "run-a", 1).address).endswith(":1234")
    assert notified == []
    launcher.release("run-a", 1)
    assert until(lambda: launcher.find(BACKEND, "run-b", 1).address)
    assert notified == ["b", "b"], "placed, then ready"
    assert launcher.find(BACKEND, "run-a", 1).missing
    assert launcher.keep_only(set, set)
    assert launcher.find(BACKEND, "run-b", 1).missing


def test_a_lost_node_ends_its_pods_and_a_later_attempt_finds_it_repaired(cluster):
    launcher, killed = cluster(node_mtbf_seconds=0.2)
    launcher.ensure(BACKEND, "run-a", 1)
    lost = until(lambda: (found := launcher.find(BACKEND, "run-a", 1)).missing and found)
    assert (lost.reason, lost.message) == (common_pb2.FAILURE_REASON_LOST, "Its node 0 was lost.")
    assert killed == [("run-a", 1)]
    launcher.release("run-a", 1)
    launcher.ensure(BACKEND, "run-a", 2)
    assert until(lambda: not launcher.find(BACKEND, "run-a", 2).no_room)


def test_an_eviction_frees_the_gpu(cluster):
    launcher, killed = cluster(eviction_share=1.0, run_seconds=0.1)
    launcher.ensure(BACKEND, "run-a", 1)
    launcher.ensure(BACKEND, "run-b", 1)
    lost = until(lambda: (found := launcher.find(BACKEND, "run-a", 1)).missing and found)
    assert lost.reason == common_pb2.FAILURE_REASON_EVICTED
    assert killed[0] == ("run-a", 1)
    assert not launcher.find(BACKEND, "run-b", 1).no_room
