"""Streams that wait without a thread: who gets their answers, and what becomes of those who leave or do not read."""

import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from unittest import mock

import grpc
import pytest
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_common.errors import NotFound
from cellsparse_common.rpc.admission import Admission, most_waiting, new_threads
from cellsparse_common.rpc.interceptor import CallGuard
from cellsparse_common.rpc.waiting_streams import THREADS, Pause, WaitingStreams, wait_out
from cellsparse_proto.v1 import orchestrator_pb2, orchestrator_pb2_grpc

LIMIT = 8
WATCHERS = 240
CONNECTIONS = 40
MANY, LARGE = 20, 2**20
"""More than gRPC takes of a stream that nobody reads."""
_CALLER: ContextVar[str] = ContextVar("caller", default="nobody")


class Post(Pause):
    """Wakes all who wait for the next number."""

    def __init__(self, seconds=PATIENCE):
        self.seconds = seconds
        self.number = 0
        self._lock = threading.Lock()
        self._waiters = set()

    def begin(self, waiter):
        with self._lock:
            self._waiters.add(waiter)
        return True

    def end(self, waiter):
        with self._lock:
            self._waiters.discard(waiter)

    def announce(self):
        with self._lock:
            self.number += 1
            for waiter in self._waiters:
                waiter.set()


class Servicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Runs whose ids say how their watchers fare."""

    def __init__(self):
        self.post = Post()
        self.opened, self.closed = [], []

    def WatchRun(self, request, context):
        behave = {"gone": self._gone, "broken": self._broken, "short": self._short, "large": self._large}
        yield from behave.get(request.run_id, self._numbers)()

    def _numbers(self):
        sent = 0
        self.opened.append(1)
        try:
            while sent < 3:
                if sent == self.post.number:
                    yield self.post
                else:
                    sent += 1
                    yield answer(sent, _CALLER.get())
        finally:
            self.closed.append(1)

    def _gone(self):
        yield Post(seconds=0.0)
        raise NotFound("There is no such run.")

    def _broken(self):
        yield Post(seconds=0.0)
        raise RuntimeError("secret")

    def _short(self):
        yield Post(seconds=0.01)
        yield answer(1, "the pause is over")

    def _large(self):
        self.opened.append(1)
        try:
            for number in range(MANY):
                yield answer(number, "x" * LARGE)
        finally:
            self.closed.append(1)

    def GetRun(self, request, context):
        return orchestrator_pb2.GetRunResponse(run=orchestrator_pb2.Run(id=request.run_id))


def answer(number, message):
    return orchestrator_pb2.WatchRunResponse(event=orchestrator_pb2.RunEvent(sequence=number, message=message))


class Named:
    """A gate that calls everybody Ada, in a context variable."""

    @contextmanager
    def open(self, method, metadata, peer):
        token = _CALLER.set("Ada")
        try:
            yield self
        finally:
            _CALLER.reset(token)  # it fails in another context

    def asked(self, request):
        pass

    def answered(self, answer):
        pass

    def sending(self, answer):
        pass


@pytest.fixture
def served(request):
    guard = CallGuard(
        admission=Admission(LIMIT, WATCHERS * 2), gate=Named(), waiting=WaitingStreams(**getattr(request, "param", {}))
    )
    server = grpc.server(new_threads(LIMIT), interceptors=[guard], maximum_concurrent_rpcs=most_waiting(LIMIT))
    servicer = Servicer()
    orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(servicer, server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(0).wait(PATIENCE)


@pytest.fixture
def connect(served):
    """Makes stubs, each with a connection of its own."""
    made = []

    def stub():
        made.append(grpc.insecure_channel(served.address, options=[("grpc.use_local_subchannel_pool", 1)]))
        return orchestrator_pb2_grpc.OrchestratorServiceStub(made[-1])

    yield stub
    for one in made:
        one.close()


def watch(stub, run_id="run-1"):
    return stub.WatchRun(orchestrator_pb2.WatchRunRequest(run_id=run_id), timeout=PATIENCE)


def get(stub):
    return stub.GetRun(orchestrator_pb2.GetRunRequest(run_id="run-1"), timeout=PATIENCE).run.id


def threads():
    return sum(thread.name == "streams" for thread in threading.enumerate())


def test_many_more_watchers_than_threads_get_everything_in_order(served, connect):
    before = threads()
    stubs = [connect() for _ in range(CONNECTIONS)]
    streams = [watch(stub) for stub in stubs for _ in range(WATCHERS // CONNECTIONS)]
    until(lambda: len(served.opened) == WATCHERS)
    assert get(connect()) == "run-1"
    seen = [[] for _ in streams]
    for _ in range(3):
        served.post.announce()
        for stream, mine in zip(streams, seen, strict=True):
            mine.append(next(stream).event)
    assert {tuple(event.sequence for event in mine) for mine in seen} == {(1, 2, 3)}
    assert {event.message for mine in seen for event in mine} == {"Ada"}, "another caller's context"
    assert all(next(stream, None) is None for stream in streams)
    until(lambda: len(served.closed) == WATCHERS)
    assert threads() - before <= THREADS


def test_those_who_do_not_read_keep_nobody_waiting(served, connect):
    deaf = connect()
    unread = [watch(deaf, "large") for _ in range(6)] + [watch(connect(), "large")]
    until(lambda: len(served.opened) == len(unread) > THREADS)
    stub = connect()
    streams = [watch(stub) for _ in range(6)]
    for _ in range(3):
        served.post.announce()
        for stream in streams:
            next(stream)
    assert get(stub) == "run-1"
    assert sum(len(answer.event.message) for answer in unread[0]) == MANY * LARGE, "who reads later misses nothing"


@pytest.mark.parametrize("served", [{"threads": 1, "most_unread": 2, "patience": 0.0}], indirect=True)
def test_of_too_many_who_do_not_read_the_oldest_is_ended(served, connect):
    unread = [watch(connect(), "large") for _ in range(4)]
    until(lambda: served.closed)
    served.post.announce()
    assert next(watch(connect())).event.sequence == 1
    codes = []
    for stream in unread:
        with suppress(grpc.RpcError):
            list(stream)
        codes.append(stream.code())
    assert grpc.StatusCode.CANCELLED in codes


def test_errors_between_answers_are_the_status_of_the_call(served, connect):
    for run_id, code, details in (
        ("gone", grpc.StatusCode.NOT_FOUND, "There is no such run."),
        ("broken", grpc.StatusCode.INTERNAL, "Internal error in"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(connect(), run_id))
        assert caught.value.code() is code
        assert caught.value.details().startswith(details)


def test_a_pause_has_an_end(connect):
    assert [each.event.message for each in watch(connect(), "short")] == ["the pause is over"]


def test_who_leaves_is_forgotten_and_leaves_room(served, connect):
    stub = connect()
    share = Admission(LIMIT).share
    streams = [watch(stub) for _ in range(share)]
    until(lambda: len(served.opened) == share)
    with pytest.raises(grpc.RpcError) as caught:
        next(watch(stub))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details().startswith(f"This connection has {share} watching streams open")
    assert get(stub) == "run-1"
    for stream in streams:
        stream.cancel()
    until(lambda: len(served.closed) == share)
    served.post.announce()
    assert next(watch(stub)).event.sequence == 1


def test_a_stream_that_cannot_go_on_takes_no_thread_from_the_others():
    def numbers():
        yield Post(seconds=0.0)
        yield 1

    def fail(_):
        failed.append(1)
        raise RuntimeError("the call is broken")

    sent, failed = [], []
    streams = WaitingStreams(threads=1)
    answers = [numbers() for _ in range(3)]
    for one in answers:
        streams.begin(one, mock.Mock(), fail)
    until(lambda: len(failed) == len(answers))
    streams.begin(numbers(), mock.Mock(), sent.append)
    until(lambda: sent == [1, None])
    assert all(next(one, None) is None for one in answers), "not closed"


def test_the_same_pause_for_a_thread():
    post = Post()
    threading.Timer(0.05, post.announce).start()
    wait_out(post)
    wait_out(Post(seconds=0.01))
    assert post.number == 1
    assert not post._waiters
