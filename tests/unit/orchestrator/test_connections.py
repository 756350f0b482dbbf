"""Connections to services are used again, by one call at a time, and not for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from support.limits import PATIENCE

from cellsparse_orchestrator.connections import Connections
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc


class Trainer(trainer_pb2_grpc.TrainerServiceServicer):
    """Answers with the connection that a call came on."""

    def Describe(self, request, context):
        return trainer_pb2.DescribeResponse(instance_id=context.peer())


@pytest.fixture
def address():
    server = grpc.server(ThreadPoolExecutor(4))
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(Trainer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0)


def connection(channel):
    describe = trainer_pb2_grpc.TrainerServiceStub(channel).Describe
    return describe(trainer_pb2.DescribeRequest(), timeout=PATIENCE).instance_id


def connections(pool, address, calls):
    """Make calls one after another and return their connections."""
    found = []
    for _ in range(calls):
        with pool.lend(address) as channel:
            found.append(connection(channel))
    return found


def test_calls_one_after_another_share_a_connection(address):
    assert len(set(connections(Connections(), address, 4))) == 1


def test_calls_at_the_same_time_have_connections_of_their_own(address):
    pool, together = Connections(), threading.Barrier(3)

    def call(_):
        with pool.lend(address) as channel:
            together.wait(PATIENCE)
            return connection(channel)

    with ThreadPoolExecutor(3) as threads:
        first = set(threads.map(call, range(3)))
        again = set(threads.map(call, range(3)))
    assert len(first) == 3
    assert first == again


def test_a_connection_is_not_used_for_ever(address):
    assert len(set(connections(Connections(seconds=0.0), address, 3))) == 3


def test_a_failed_call_ends_its_connection(address):
    pool = Connections()
    (first,) = connections(pool, address, 1)
    with pytest.raises(RuntimeError), pool.lend(address) as channel:
        raise RuntimeError
    with pytest.raises(ValueError, match="closed"):
        connection(channel)
    assert connections(pool, address, 1) != [first]


def test_few_connections_stay_open_without_a_call(address):
    pool = Connections(most_idle=1)
    with pool.lend(address) as one, pool.lend(address) as other:
        connection(one)
        last = connection(other)
    with pytest.raises(ValueError, match="closed"):
        connection(other)
    assert connections(pool, address, 1) != [last]
