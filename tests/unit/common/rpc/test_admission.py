"""How many calls a server admits, of whom, and which ones are answered all the same."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_common.errors import Busy, ResourceExhausted, from_rpc_error
from cellsparse_common.rpc.admission import KEPT_THREADS, Admission, most_waiting, new_threads
from cellsparse_common.rpc.interceptor import CallGuard
from cellsparse_common.rpc.retries import repeated
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc

LIMIT = 4


class BusyServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """Streams that say nothing until they are let go."""

    def __init__(self):
        self.open = 0
        self.go = threading.Event()

    def WatchTraining(self, request, context):
        self.open += 1
        while context.is_active() and not self.go.wait(0.05):
            pass
        yield from ()

    def Describe(self, request, context):
        return trainer_pb2.DescribeResponse(backend="unet")

    def StopTraining(self, request, context):
        return trainer_pb2.StopTrainingResponse()

    def Predict(self, request, context):
        return trainer_pb2.PredictResponse()


@pytest.fixture
def busy(request):
    limit = getattr(request, "param", LIMIT)
    servicer = BusyServicer()
    server = grpc.server(
        new_threads(limit),
        interceptors=[CallGuard(admission=Admission(limit))],
        maximum_concurrent_rpcs=most_waiting(limit),
    )
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    servicer.go.set()
    server.stop(0).wait(PATIENCE)


@pytest.fixture
def connect(busy):
    """Makes channels, each with a connection of its own."""
    made = []

    def channel():
        made.append(grpc.insecure_channel(busy.address, options=[("grpc.use_local_subchannel_pool", 1)]))
        return made[-1]

    yield channel
    for one in made:
        one.close()


def watch(channel):
    request = trainer_pb2.WatchTrainingRequest(run_id="run-1", attempt=1)
    return trainer_pb2_grpc.TrainerServiceStub(channel).WatchTraining(request, timeout=PATIENCE)


def refusal(stream):
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return caught.value.details()


def test_one_connection_leaves_a_quarter_to_others(busy, connect):
    mine, others = connect(), connect()
    kept = [watch(mine) for _ in range(3)]
    until(lambda: busy.open == 3)
    assert refusal(watch(mine)).startswith("This connection has 3 calls open, and a server of 4 calls at once")
    kept.append(watch(others))
    until(lambda: busy.open == 4)
    assert refusal(watch(others)).startswith("All 4 calls that this server takes at once")
    kept.pop().cancel()
    predict = trainer_pb2_grpc.TrainerServiceStub(others).Predict

    def answered():
        try:
            return predict(trainer_pb2.PredictRequest(model_id="a", image=b"a"), timeout=PATIENCE) is not None
        except grpc.RpcError:
            return False

    until(answered)


def test_urgent_calls_are_answered_whatever_waits(busy, connect):
    channel = connect()
    health_stub = health_pb2_grpc.HealthStub(channel)
    followed = [health_stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE) for _ in range(LIMIT // 2)]
    assert [next(one).status for one in followed] == [health_pb2.HealthCheckResponse.SERVING] * (LIMIT // 2)
    kept = [watch(channel) for _ in range(2 * LIMIT)]
    until(lambda: busy.open == 3)
    for _ in range(3):
        answer = health_stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        trainer = trainer_pb2_grpc.TrainerServiceStub(connect())
        assert trainer.Describe(trainer_pb2.DescribeRequest(), timeout=PATIENCE).backend == "unet"
        trainer.StopTraining(trainer_pb2.StopTrainingRequest(run_id="run-1", attempt=1), timeout=PATIENCE)
    assert len(kept) == 2 * LIMIT


def test_calls_that_have_ended_count_no_more():
    admission = Admission(1)
    for _ in range(3):
        with admission.admit("/cellsparse.v1.A/B", "peer"):
            pass
    with (
        admission.admit("/cellsparse.v1.A/B", "peer"),
        pytest.raises(ResourceExhausted),
        admission.admit("/cellsparse.v1.A/B", "another"),
    ):
        pass


@pytest.mark.parametrize(("limit", "share"), [(1, 1), (2, 2), (3, 3), (4, 3), (32, 24)])
def test_the_share_of_a_connection(limit, share):
    assert Admission(limit).share == share


def test_what_cannot_be_decoded_is_the_callers_fault(busy, connect):
    for method in ("/cellsparse.v1.TrainerService/Predict", "/grpc.health.v1.Health/Check"):
        with pytest.raises(grpc.RpcError) as caught:
            connect().unary_unary(method)(b"\xff\xff\xff", timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == f"What was sent to {method} is not a message of that method."


def test_many_at_once_are_all_answered_or_refused(busy, connect):
    busy.go.set()
    stub = trainer_pb2_grpc.TrainerServiceStub(connect())

    def call(_):
        try:
            stub.Predict(trainer_pb2.PredictRequest(model_id="a", image=b"a"), timeout=PATIENCE)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    with ThreadPoolExecutor(24) as threads:
        codes = set(threads.map(call, range(200)))
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert grpc.StatusCode.OK in codes


PREDICT = "/cellsparse.v1.TrainerService/Predict"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture
def half_open():
    """Begins calls whose request never comes."""
    end = threading.Event()

    def silent():
        end.wait(PATIENCE)
        yield from ()

    def begin(channel, method):
        return channel.stream_unary(method).future(silent(), timeout=PATIENCE)

    yield begin
    end.set()


@pytest.mark.parametrize("busy", [32], indirect=True)
def test_calls_without_a_request_leave_room_for_others(busy, connect, half_open):
    busy.go.set()
    begun = [half_open(connect(), method) for method in (PREDICT, CHECK, WATCH) for _ in range(3 * KEPT_THREADS)]
    kept = 32 // 4 + 2 * (3 * KEPT_THREADS // 4)
    # All others are refused, whichever connection they came on.
    until(lambda: sum(call.done() for call in begun) >= len(begun) - kept)
    channel = connect()
    trainer, checks = trainer_pb2_grpc.TrainerServiceStub(channel), health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest()
    for _ in range(3):
        # As soon as those that are kept are no longer young, whoever sends a request takes their places.
        patiently(lambda: trainer.Predict(trainer_pb2.PredictRequest(model_id="a", image=b"a"), timeout=PATIENCE))
        patiently(lambda: checks.Check(asked, timeout=PATIENCE))
        patiently(lambda: next(checks.Watch(asked, timeout=PATIENCE)))
    found = {call.code() for call in begun if call.done()}
    assert found <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}


def patiently(call):
    """Repeat a call that a busy server refuses."""

    def once(_):
        try:
            return call()
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    return repeated(once, PATIENCE)


def test_a_call_that_sends_nothing_is_the_callers_fault(busy, connect):
    with pytest.raises(grpc.RpcError) as caught:
        connect().stream_unary(PREDICT)(iter(()), timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"The call of {PREDICT} has no request."


def test_streams_of_health_are_bounded_and_count_no_more_when_they_end(busy, connect):
    def health_streams(count):
        stub = health_pb2_grpc.HealthStub(connect())
        return [stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE) for _ in range(count)]

    kept = health_streams(LIMIT // 2)
    for one in kept:
        assert next(one).status == health_pb2.HealthCheckResponse.SERVING
    assert "2 streams watch the health of this server" in refusal(health_streams(1)[0])
    for one in kept:
        one.cancel()

    def answered():
        try:
            return next(health_streams(1)[0])
        except grpc.RpcError:
            return None

    until(answered)


def test_connections_of_one_machine_leave_an_eighth_to_others():
    admission = Admission(8)
    with ExitStack() as running:
        for port in range(7):
            running.enter_context(admission.admit("/cellsparse.v1.A/B", f"ipv4:10.0.0.1:{port}"))
        with pytest.raises(Busy, match="This machine has 7 calls open"):
            running.enter_context(admission.admit("/cellsparse.v1.A/B", "ipv4:10.0.0.1:9"))
        running.enter_context(admission.admit("/cellsparse.v1.A/B", "ipv4:10.0.0.2:1"))
