"""Channels to slow servers, and channels that are closed while other threads call."""

import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import suppress

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


def test_a_connection_has_time_to_come_about():
    """A busy machine took longer than 0.1 s for a handshake; the call then failed, though the server was there."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = threading.Thread(target=relay_late, args=(listener, port, 0.5), daemon=True)
        relay.start()
        with open_channel(f"127.0.0.1:{listener.getsockname()[1]}") as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    server.stop(None).wait(PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def relay_late(listener: socket.socket, port: int, seconds: float) -> None:
    """Pass on what one client and a server say to each other; the client waits before the first byte is passed on."""
    client, _ = listener.accept()
    time.sleep(seconds)
    ahead = socket.create_connection(("127.0.0.1", port))
    back = threading.Thread(target=pump, args=(ahead, client), daemon=True)
    back.start()
    pump(client, ahead)
    back.join(PATIENCE)


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes from one socket until it ends."""
    with suppress(OSError):  # the other side has ended already
        while data := source.recv(2**16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
