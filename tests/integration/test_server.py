"""What every service's server does, asked of a real sparsifier process by plain gRPC clients."""

import contextlib
import json
import os
import signal
import time

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from support.limits import PATIENCE, QUICK
from support.server_process import ServerProcess
from support.tiny_dataset import blobs

from cellsparse_common.errors import Unavailable, from_rpc_error
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_common.rpc.channel import open_channel
from cellsparse_proto.v1 import sparsifier_pb2, sparsifier_pb2_grpc

SPARSIFIER = ["-m", "cellsparse_sparsifier"]
SERVICE = "cellsparse.v1.SparsifierService"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with ServerProcess(SPARSIFIER, folder / "store", folder, CELLSPARSE_MAX_MESSAGE_MIB="4") as server:
        yield server


@pytest.fixture
def channel(server):
    with open_channel(server.address) as channel:
        yield channel


def request(size: int = 64) -> sparsifier_pb2.SparsifyRequest:
    image, label = blobs(size)
    settings = sparsifier_pb2.SparsifySettings(mode=3, k=1, background=2)
    return sparsifier_pb2.SparsifyRequest(image=encode_tiff(image), label=encode_labels(label), settings=settings)


@pytest.mark.parametrize("service", ["", SERVICE])
def test_health(channel, service):
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_tells_the_services_and_describes_them(channel, version):
    ask = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (listed,) = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=PATIENCE)
    names = [service.name for service in listed.list_services_response.service]
    both = {f"grpc.reflection.{each}.ServerReflection" for each in ("v1", "v1alpha")}
    assert {SERVICE, "grpc.health.v1.Health", *both} <= set(names)
    asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=name) for name in names]
    for name, answer in zip(names, ask(iter(asked), timeout=PATIENCE), strict=True):
        assert answer.file_descriptor_response.file_descriptor_proto, name


def test_a_message_over_the_limit_is_refused(channel):
    big = sparsifier_pb2.SparsifyRequest(image=b"0" * (5 * 2**20), label=b"x")
    with pytest.raises(grpc.RpcError) as caught:
        sparsifier_pb2_grpc.SparsifierServiceStub(channel).Sparsify(big, timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_logs_are_json_with_the_caller_s_trace(server, channel):
    trace = "0af7651916cd43dd8448eb211c80319c"
    metadata = [("traceparent", f"00-{trace}-b7ad6b7169203331-01")]
    sparsifier_pb2_grpc.SparsifierServiceStub(channel).Sparsify(request(), timeout=PATIENCE, metadata=metadata)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        found = [line for line in lines if line.get("trace_id") == trace]
        if found:
            break
        time.sleep(0.1)
    assert "SparsifierService/Sparsify OK" in found[0]["message"]
    assert found[0]["service"] == "sparsifier"


def test_sigterm_finishes_running_calls_and_exits_with_0(tmp_path):
    with ServerProcess(SPARSIFIER, tmp_path / "store", tmp_path) as server, open_channel(server.address) as channel:
        stub = sparsifier_pb2_grpc.SparsifierServiceStub(channel)
        stub.Sparsify(request(), timeout=PATIENCE)
        big = request(3000)
        before = psutil.Process(server.pid).cpu_times().user
        call = stub.Sparsify.future(big, timeout=PATIENCE)
        while psutil.Process(server.pid).cpu_times().user < before + 0.05 and not call.done():
            time.sleep(0.01)  # until it works on the call
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
        assert call.result(PATIENCE).kept


def test_a_killed_server_is_unavailable_within_seconds(tmp_path):
    with ServerProcess(SPARSIFIER, tmp_path / "store", tmp_path) as server, open_channel(server.address) as channel:
        stub = sparsifier_pb2_grpc.SparsifierServiceStub(channel)
        stub.Sparsify(request(), timeout=PATIENCE)
        os.kill(server.pid, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            stub.Sparsify(request(), timeout=PATIENCE)
        assert time.monotonic() - start < QUICK
        assert isinstance(from_rpc_error(caught.value), Unavailable)


def test_a_taken_port_is_one_sentence(server, tmp_path):
    port = server.address.rpartition(":")[2]
    with pytest.raises(RuntimeError, match="cannot listen on"):
        ServerProcess(SPARSIFIER, tmp_path / "store", tmp_path, CELLSPARSE_PORT=port).__enter__()


def test_a_wrong_setting_is_one_sentence(tmp_path):
    with pytest.raises(RuntimeError, match="CELLSPARSE_WORKERS is 'many'"):
        ServerProcess(SPARSIFIER, tmp_path / "store", tmp_path, CELLSPARSE_WORKERS="many").__enter__()


def test_a_server_that_nobody_uses_ends_although_it_is_probed(tmp_path):
    with (
        ServerProcess(SPARSIFIER, tmp_path / "store", tmp_path, CELLSPARSE_EXIT_UNUSED_SECONDS="3") as server,
        open_channel(server.address) as channel,
    ):
        sparsifier_pb2_grpc.SparsifierServiceStub(channel).Sparsify(request(), timeout=PATIENCE)
        called = time.monotonic()
        while time.monotonic() < called + PATIENCE and server.running():
            with contextlib.suppress(grpc.RpcError):
                health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            time.sleep(0.2)
        assert time.monotonic() - called > 2.5
        assert server.wait(PATIENCE) == 0
