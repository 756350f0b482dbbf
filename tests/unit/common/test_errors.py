from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from support.limits import PATIENCE

from cellsparse_common import errors
from cellsparse_common.rpc.interceptor import CallGuard
from cellsparse_proto.v1 import sparsifier_pb2, sparsifier_pb2_grpc

KINDS = [
    errors.InvalidArgument,
    errors.NotFound,
    errors.AlreadyExists,
    errors.FailedPrecondition,
    errors.ResourceExhausted,
    errors.Busy,
    errors.Unavailable,
    errors.StorageError,
    errors.DeadlineExceeded,
]


class Raising(sparsifier_pb2_grpc.SparsifierServiceServicer):
    error: Exception

    def Sparsify(self, request, context):
        raise self.error

    def SparsifyDataset(self, request, context):
        yield sparsifier_pb2.SparsifyDatasetResponse(items_done=1)
        raise self.error


@pytest.fixture(scope="module")
def server():
    servicer = Raising()
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[CallGuard()])
    sparsifier_pb2_grpc.add_SparsifierServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield servicer, sparsifier_pb2_grpc.SparsifierServiceStub(channel)
    server.stop(0).wait(PATIENCE)


def settings():
    return sparsifier_pb2.SparsifySettings(mode=3, k=4, background=2)


def unary(stub):
    request = sparsifier_pb2.SparsifyRequest(image=b"x", label=b"y", settings=settings())
    with pytest.raises(grpc.RpcError) as caught:
        stub.Sparsify(request, timeout=PATIENCE)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_arrives_as_the_class_it_left_as(server, kind):
    servicer, stub = server
    servicer.error = kind("The value is 7; allowed: 1 to 5.", "settings.k")
    answer = unary(stub)
    back = errors.from_rpc_error(answer)
    assert answer.code() == kind.status
    assert type(back) is kind
    assert back.message == "The value is 7; allowed: 1 to 5."
    assert back.violations == [("settings.k", back.message)]


@pytest.mark.parametrize("kind", [errors.Busy, errors.Starting])
def test_a_server_that_is_busy_or_starts_says_when_to_come_back(server, kind):
    servicer, stub = server
    servicer.error = kind("Number 7 in line.", retry_seconds=2.5)
    found = errors.from_rpc_error(unary(stub))
    assert isinstance(found, kind)
    assert (found.message, found.retry_seconds) == ("Number 7 in line.", 2.5)


def test_an_error_in_the_middle_of_a_stream(server):
    servicer, stub = server
    servicer.error = errors.StorageError("The store is full.")
    request = sparsifier_pb2.SparsifyDatasetRequest(
        dataset_id="a", target_dataset_id="b", target_name="b", settings=settings()
    )
    stream = stub.SparsifyDataset(request, timeout=PATIENCE)
    assert next(stream).items_done == 1
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert isinstance(errors.from_rpc_error(caught.value), errors.StorageError)


def test_an_unexpected_exception_is_internal_and_does_not_leak(server):
    servicer, stub = server
    servicer.error = KeyError("/secret/path")
    answer = unary(stub)
    assert answer.code() == grpc.StatusCode.INTERNAL
    assert "/secret" not in answer.details()
    assert "Sparsify" in answer.details()


def test_broken_rules_never_reach_the_servicer(server):
    servicer, stub = server
    servicer.error = AssertionError("the servicer was called")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Sparsify(sparsifier_pb2.SparsifyRequest(), timeout=PATIENCE)
    back = errors.from_rpc_error(caught.value)
    assert isinstance(back, errors.InvalidArgument)
    assert [field for field, _ in back.violations] == ["image", "label", "settings"]


def test_nobody_there_is_unavailable():
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(grpc.RpcError) as caught:
        sparsifier_pb2_grpc.SparsifierServiceStub(channel).Sparsify(sparsifier_pb2.SparsifyRequest(), timeout=PATIENCE)
    assert isinstance(errors.from_rpc_error(caught.value), errors.Unavailable)


@pytest.mark.parametrize("text", ["x", "ä", "😀", "\0"])
def test_an_error_of_any_length_arrives(server, text):
    """The transport would refuse metadata of 16 KiB, and the client see an error of its own."""
    servicer, stub = server
    servicer.error = errors.NotFound(text * 20_000, violations=[(f"field[{n}]", text * 500) for n in range(100)])
    answer = unary(stub)
    back = errors.from_rpc_error(answer)
    assert type(back) is errors.NotFound
    assert back.message.startswith(text * 80)
    assert back.message.endswith(" ...")
    assert 0 < len(back.violations) < 100
    assert sum(len(value) for _, value in answer.trailing_metadata()) < 8192 - len(back.message.encode())


def test_a_request_with_many_faults_is_told_of_some(server):
    servicer, stub = server
    servicer.error = AssertionError("the servicer was called")
    splits = [99] * 2000
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.SparsifyDataset(sparsifier_pb2.SparsifyDatasetRequest(splits=splits), timeout=PATIENCE))
    back = errors.from_rpc_error(caught.value)
    assert isinstance(back, errors.InvalidArgument)
    assert back.violations
