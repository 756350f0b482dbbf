"""A small run of the simulator: real orchestrator, real gRPC, simulated nodes that fail."""

from simulation.scenario import Scenario
from simulation.session import simulate
from support.limits import PATIENCE

SCENARIO = Scenario(
    nodes=4,
    gpus=2,
    runs=16,
    run_seconds=1.0,
    start_seconds=0.1,
    event_seconds=0.2,
    node_mtbf_seconds=6.0,
    repair_seconds=0.5,
    eviction_share=0.4,
    compression=3600.0,
)


def test_every_run_ends_once_through_failures(tmp_path):
    found = simulate(SCENARIO, tmp_path, seconds=PATIENCE)
    assert found["states"] == {"SUCCEEDED": 16}
    assert (found["lost"], found["succeeded_without_training"], found["trained_twice"]) == (0, 0, 0)
    assert 16 < found["attempts"] <= 16 + found["pods_lost"]
    assert found["events_stored"] > found["events_of_trainers"] * 0.8
    assert found["queue"]["seconds"]["p99"] >= found["queue"]["ideal_seconds"]["p99"] > 0
    assert found["busy"]["threads"] > 8
    assert found["begin_latency_seconds"]["median"] is not None
