"""With how many nodes a training could go on that cannot have all."""

from dataclasses import replace

from cellsparse_orchestrator.launchers.base import Size
from cellsparse_orchestrator.launchers.kubernetes.fewer_nodes import FewerNodes
from cellsparse_orchestrator.launchers.kubernetes.reasons import Verdict

PART = Verdict(waiting=True, no_room=True, in_part=True, placed=3)
QUEUED = Verdict(waiting=True, no_quota=True)
SIZE = Size(nodes=4, fewest=2)
NAME = "run-1-a2"


def could(verdict, size=SIZE, seconds=0.0):
    return FewerNodes(seconds).look(NAME, size, verdict).fewer


def test_after_the_wait_it_takes_the_nodes_that_its_pods_have():
    assert could(PART) == 3
    assert could(replace(PART, placed=2)) == 2
    assert could(replace(PART, placed=1)) == 0, "that is below the fewest"


def test_in_a_queue_that_has_no_quota_for_all_it_asks_for_the_fewest():
    assert could(QUEUED) == 2


def test_it_waits_for_all_nodes_first():
    found = FewerNodes(60).look(NAME, SIZE, PART)
    assert found.fewer == 0
    assert 59 < found.again_seconds <= 60, "when the wait is over, nothing in the cluster has to change"


def test_nothing_changes_where_all_nodes_are_needed_there_or_on_their_way():
    assert could(PART, Size(nodes=4)) == 0
    assert could(PART, Size(nodes=4, fewest=4)) == 0
    assert could(Verdict(address="10.0.0.1", placed=4)) == 0
    assert could(Verdict(waiting=True, placed=4, message="Starting.")) == 0
    assert could(Verdict(waiting=True, no_room=True)) == 0


def test_the_wait_is_that_of_one_attempt(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("cellsparse_orchestrator.launchers.kubernetes.fewer_nodes.time.monotonic", lambda: clock[0])
    nodes = FewerNodes(60)
    nodes.look(NAME, SIZE, Verdict(waiting=True))
    clock[0] += 61
    assert nodes.look("run-2-a2", SIZE, PART).fewer == 0
    assert nodes.look(NAME, SIZE, PART).fewer == 3
    nodes.forget(NAME)
    assert nodes.look(NAME, SIZE, PART).fewer == 0
