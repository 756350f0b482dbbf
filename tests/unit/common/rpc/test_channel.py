"""Channels: closed while other threads call, and connected slowly."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
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


@pytest.fixture
def slow_entrance():
    """The port of a healthy server behind an entrance that holds every connection back; and how many have come."""
    server = grpc.server(ThreadPoolExecutor(2))
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    behind = server.add_insecure_port("127.0.0.1:0")
    server.start()
    entrance = socket.create_server(("127.0.0.1", 0))
    came = []

    def carry(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                came.append(entrance.accept()[0])
                time.sleep(0.6)  # of a busy machine
                came.append(socket.create_connection(("127.0.0.1", behind)))
                for pair in (came[-2:], came[:-3:-1]):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield entrance.getsockname()[1]
    entrance.close()
    for each in came:
        each.close()
    server.stop(0)


def test_a_connection_has_time_to_come_about(slow_entrance):
    """One that took longer than 0.1 s was given up, and so was the call."""
    with open_channel(f"127.0.0.1:{slow_entrance}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
