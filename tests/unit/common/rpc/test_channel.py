"""Channels that are closed while other threads call."""

import subprocess
import sys

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.limits import PATIENCE

from cellsparse_common.rpc.channel import open_channel

CLOSED_BESIDE_CALLS = """
import contextlib, threading, grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from cellsparse_common.rpc.channel import open_channel

def call(stub, first):
    first.set()
    with contextlib.suppress(grpc.RpcError, ValueError):
        while True:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=0.001)

for _ in range(20):
    channel = open_channel("127.0.0.1:1")
    stub = health_pb2_grpc.HealthStub(channel)
    started = [threading.Event() for _ in range(4)]
    threads = [threading.Thread(target=call, args=(stub, first)) for first in started]
    for thread in threads:
        thread.start()
    for first in started:
        first.wait()
    channel.close()
    for thread in threads:
        thread.join()
"""


def test_a_call_on_a_closed_channel_is_an_error():
    channel = open_channel("127.0.0.1:1")
    stub = health_pb2_grpc.HealthStub(channel)
    channel.close()
    with pytest.raises(ValueError, match="closed channel"):
        stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)


def test_a_channel_may_be_closed_while_other_threads_begin_calls():
    """With a handle per method, as generated stubs ask for, the process crashed."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_BESIDE_CALLS], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
