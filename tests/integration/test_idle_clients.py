"""Clients that keep calls open and do nothing with them lock nobody out, and nobody takes the server for dead."""

import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, state_names, until

from cellsparse_common.rpc.health import check
from cellsparse_proto.v1 import orchestrator_pb2, orchestrator_pb2_grpc

WORKERS = 16
CONNECTIONS = 4
REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    with Orchestrator(tmp_path_factory.mktemp("home"), CELLSPARSE_WORKERS=str(WORKERS)) as orchestrator:
        orchestrator.healthy("unet")
        yield orchestrator


@pytest.fixture
def connections():
    """Makes channels with a connection each."""
    made = []

    def several(address, count=CONNECTIONS):
        own = [("grpc.use_local_subchannel_pool", 1)]
        made.extend(grpc.insecure_channel(address, options=own) for _ in range(count))
        return made[-count:]

    yield several
    for channel in made:
        channel.close()


@pytest.fixture
def silent():
    """Requests that never come."""
    end = threading.Event()

    def requests():
        end.wait(PATIENCE)
        yield from ()

    yield requests
    end.set()


def test_idle_streams_and_calls_without_requests_leave_the_urgent_ones(orchestrator, connections, silent):
    run = orchestrator.train(orchestrator.upload().id, steps=100_000, learning_rate=0.9)
    until(lambda: orchestrator.run(run.id).state >= 3)
    idle, half_open = [], []
    for channel in connections(orchestrator.address):
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        asked = orchestrator_pb2.WatchRunRequest(run_id=run.id)
        idle += [stub.WatchRun(asked, timeout=PATIENCE) for _ in range(2 * WORKERS)]
        for method in ("GetRun", "GetStatus", "CancelRun", "CreateRun"):
            begin = channel.stream_unary(f"/cellsparse.v1.OrchestratorService/{method}")
            half_open += [begin.future(silent(), timeout=PATIENCE) for _ in range(WORKERS)]
        health_stub = health_pb2_grpc.HealthStub(channel)
        idle += [health_stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE) for _ in range(WORKERS)]
    until(lambda: sum(call.done() and call.code() in REFUSED for call in half_open) > len(half_open) / 2)

    assert until(lambda: check(orchestrator.address, seconds=PATIENCE) == "")
    status = orchestrator_pb2.GetStatusRequest()
    assert answered(lambda: orchestrator.runs.GetStatus(status, timeout=PATIENCE)).services
    cancel = orchestrator_pb2.CancelRunRequest(run_id=run.id)
    assert answered(lambda: orchestrator.runs.CancelRun(cancel, timeout=PATIENCE)).run.id == run.id
    # The end of the run ends its watchers, and there is room again.
    assert answered(lambda: orchestrator.run(run.id)).id == run.id


def test_watchers_hold_no_threads_and_those_who_read_nothing_hold_nobody_up(orchestrator, connections):
    run = orchestrator.train(orchestrator.upload().id, steps=100_000, learning_rate=0.9)
    asked = orchestrator_pb2.WatchRunRequest(run_id=run.id)
    stubs = [orchestrator_pb2_grpc.OrchestratorServiceStub(each) for each in connections(orchestrator.address, 6)]
    unread = [stub.WatchRun(asked, timeout=PATIENCE) for stub in stubs[:1] for _ in range(WORKERS // 2)]
    streams = [stub.WatchRun(asked, timeout=PATIENCE) for stub in stubs[1:] for _ in range(WORKERS // 2)]
    assert len(streams) > 2 * WORKERS
    firsts = [answered(lambda stream=stream: next(stream)).event for stream in streams]
    assert {event.sequence for event in firsts} == {1}
    until(lambda: orchestrator.run(run.id).state >= 3)
    orchestrator.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=PATIENCE)
    events = [[first, *(answer.event for answer in stream)] for first, stream in zip(firsts, streams, strict=True)]
    numbers = [event.sequence for event in events[0]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(each == events[0] for each in events)
    assert state_names(events[0])[-1] == "CANCELLED"
    assert [answer.event for answer in unread[0]] == events[0]


def test_a_trainer_whose_health_many_watch_is_not_taken_for_dead(orchestrator, connections):
    before = orchestrator.healthy("unet")
    streams = []
    for channel in connections(before.address):
        stub = health_pb2_grpc.HealthStub(channel)
        streams += [stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE) for _ in range(100)]
    assert check(before.address, seconds=PATIENCE) == ""
    after = orchestrator.healthy("unet")
    assert (after.pid, after.address) == (before.pid, before.address)
    assert len(streams) == 100 * CONNECTIONS


def answered(call):
    """Repeat a call until it is not refused."""

    def once():
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in REFUSED:
                raise
            return None

    return until(once)
