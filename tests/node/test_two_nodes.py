"""One training over two real nodes: it goes on from its checkpoint when a node is lost, on the node that is left."""

import time

from support.limits import PATIENCE
from support.orchestrator import until
from support.real_node import network
from support.real_node.cluster import second_node
from support.real_node.training import start

from cellsparse_proto.v1 import common_pb2

TOGETHER = {"nodes": 2, "steps": 400, "checkpoint_every_steps": 5, "validate_every_steps": 200}
CUT_SECONDS = 5


def places(release, run) -> dict[str, str]:
    """Return the node of each of a run's pods."""
    return {pod.metadata.name: pod.spec.node_name for pod in release.pods_of(run)}


def test_a_training_over_two_nodes_whose_link_is_cut_and_one_is_lost(release, cluster, in_cluster):
    with second_node(cluster):
        run, seen, cut = start(in_cluster, **TOGETHER), [], []
        for event in run.watch():
            seen.append(event)
            if event.training.step >= 10 and not cut:
                assert sorted(places(release, run).values()) == ["node1", "node2"]
                network.set_cable(2, up=False)
                cut.append(time.monotonic())
                time.sleep(CUT_SECONDS)
                network.set_cable(2, up=True)
        ended = run.info()
        assert cut
        assert ended.state == common_pb2.RUN_STATE_SUCCEEDED, ended.message
        lost = start(in_cluster, **TOGETHER)
        for event in lost.watch():
            if event.training.step >= 10:
                break
        assert sorted(places(release, lost).values()) == ["node1", "node2"]
    # The second node is gone for good; a training of two nodes waits until there is another one.
    until(lambda: lost.info().state in (common_pb2.RUN_STATE_RETRYING, common_pb2.RUN_STATE_STARTING), PATIENCE)
    with second_node(cluster):
        for _ in lost.watch():
            pass
    ended = lost.info()
    assert ended.state == common_pb2.RUN_STATE_SUCCEEDED, ended.message
    assert ended.attempts > 1


def test_a_training_that_may_have_fewer_nodes_goes_on_with_the_one_that_is_left(release, cluster, in_cluster):
    with second_node(cluster):
        run, events = start(in_cluster, **TOGETHER, min_nodes=1), []
        for event in run.watch():
            events.append(event)
            if event.training.step >= 10:
                break
        assert sorted(places(release, run).values()) == ["node1", "node2"]
    events += run.watch()
    ended = run.info()
    assert ended.state == common_pb2.RUN_STATE_SUCCEEDED, ended.message
    assert (ended.nodes, ended.attempts > 1) == (1, True)
    assert any("goes on with 1 of 2 nodes" in event.message for event in events)
