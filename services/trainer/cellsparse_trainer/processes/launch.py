"""How the processes of an attempt are started: one worker, or one program that starts all workers of this node.

Where several processes train one model, each finds its place in the variables that torchrun sets: RANK, WORLD_SIZE,
LOCAL_RANK and the address of rank 0. On node 0 the ports from `Placement.port` on are that of the framework's
rendezvous, that of the heartbeat, and one for each local process.
"""

import json
import math
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.processes.fork_server import WORKER
from cellsparse_trainer.processes.thread_counts import thread_counts

LOOPBACK = "127.0.0.1"
SECRET = "CELLSPARSE_RENDEZVOUS_SECRET"  # noqa: S105 - a variable's name
"""Variable by which processes get their attempt's secret: other users see a process' arguments, and not these."""
_SECRET_BYTES = 32
HEARTBEAT_PORT, WORKER_PORTS = 1, 2
"""Offsets from the first port."""
_FIRST_PORT, _LAST_PORT = 20000, 31000


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the processes of an attempt are."""

    hosts: tuple[str, ...]
    """Addresses of all nodes, in their order."""
    node: int
    """Which of them this one is."""
    processes: int
    """Processes on each node."""
    port: int
    """First of the ports used on every node."""
    rendezvous_seconds: float = 120.0
    """Seconds within which the processes of all nodes must connect."""
    secret: str = field(default="", repr=False)
    """What they know each other by; empty: run and attempt stand for it."""

    @property
    def world(self) -> int:
        """Processes on all nodes."""
        return len(self.hosts) * self.processes

    @property
    def coordinator(self) -> str:
        """Where rank 0 listens for the others, as host:port."""
        return f"{self.hosts[0]}:{self.port + HEARTBEAT_PORT}"

    def workers(self) -> list[str]:
        """Return the addresses of all processes by rank, as host:port."""
        return [f"{host}:{self.port + WORKER_PORTS + local}" for host in self.hosts for local in range(self.processes)]


NodeCommand = Callable[[Path, Placement], list[str]]
"""Makes the command that starts a node's processes, from the job's file and where all processes are."""


def find_placement(request: trainer_pb2.StartTrainingRequest, rendezvous_seconds: float = 120.0) -> Placement | None:
    """Return where an attempt's processes are; None if there is one only.

    Args:
        request: The attempt, with its placement if a launcher chose one.
        rendezvous_seconds: See `Placement`.

    Raises:
        InvalidArgument: The given placement has more nodes than the settings, or fewer than they allow, or not that
            node.
    """
    nodes, each = (max(1, n) for n in (request.settings.nodes, request.settings.processes_per_node))
    given = request.placement
    if request.HasField("placement"):
        fewest = request.settings.min_nodes or nodes
        if not fewest <= len(given.hosts) <= nodes:
            allowed = "as many" if fewest >= nodes else f"{fewest} to {nodes}"
            raise InvalidArgument(
                f"placement names {len(given.hosts)} hosts, but settings.nodes is {nodes}; allowed: {allowed}.",
                "placement.hosts",
            )
        nodes = len(given.hosts)
        if given.node >= nodes:
            raise InvalidArgument(f"placement.node is {given.node}; allowed: 0 to {nodes - 1}.", "placement.node")
    if nodes * each == 1:
        return None
    if not request.HasField("placement"):
        return here(nodes * each, rendezvous_seconds)
    return Placement(
        hosts=tuple(given.hosts),
        node=given.node,
        processes=each,
        port=given.port,
        rendezvous_seconds=rendezvous_seconds,
        secret=given.secret,
    )


def here(processes: int, rendezvous_seconds: float = 120.0) -> Placement:
    """Return a placement of all processes on this machine, on ports that are free now."""
    return Placement(
        hosts=(LOOPBACK,),
        node=0,
        processes=processes,
        port=_PORTS.take(WORKER_PORTS + processes),
        rendezvous_seconds=rendezvous_seconds,
        secret=secrets.token_hex(_SECRET_BYTES),
    )


def alone(job: Path) -> list[str]:
    """Return the command of the one process of an attempt."""
    return [*WORKER, str(job)]


def torchrun(job: Path, placement: Placement) -> list[str]:
    """Return the command that starts this node's processes with torchrun.

    Ranks follow the order of nodes, so that rank 0 is where the others look for it.
    """
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={len(placement.hosts)}",
        f"--node-rank={placement.node}",
        f"--nproc-per-node={placement.processes}",
        f"--master-addr={placement.hosts[0]}",
        f"--master-port={placement.port}",
        f"--local-addr={placement.hosts[placement.node]}",
        f"--rdzv-conf=timeout={math.ceil(placement.rendezvous_seconds)}",
        "--max-restarts=0",
        "--module",
        "cellsparse_trainer.training.worker",
        str(job),
    ]


def one_per_rank(job: Path, placement: Placement) -> list[str]:
    """Return the command that starts this node's processes one by one, with `TF_CONFIG` for TensorFlow."""
    record = {
        "hosts": placement.hosts,
        "node": placement.node,
        "processes": placement.processes,
        "port": placement.port,
    }
    return [sys.executable, "-m", "cellsparse_trainer.processes.spawn", str(job), json.dumps(record)]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How the processes of one attempt are started on this node."""

    placement: Placement | None = None
    """Where its processes are; None: one process trains alone."""
    node_command: NodeCommand = one_per_rank
    """Makes the command for more than one process."""

    def command(self, job: Path) -> list[str]:
        """Return the command to run."""
        return alone(job) if self.placement is None else self.node_command(job, self.placement)

    def environment(self) -> dict[str, str]:
        """Return the variables to set besides those of this process."""
        if self.placement is None:
            return thread_counts(1)
        return {SECRET: self.placement.secret, **thread_counts(self.placement.processes)}

    @property
    def world(self) -> int:
        """Processes that train together, on all nodes."""
        return 1 if self.placement is None else self.placement.world


class _Ports:
    """Hands out ports in turn: those of an attempt look free until its processes have started, which takes seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0

    def take(self, count: int) -> int:
        """Return the first of some ports in a row that nobody listens on, and that were not handed out lately.

        Raises:
            OSError: There are none.
        """
        # Below those that the kernel gives to connections, and elsewhere in every process.
        span = _LAST_PORT - _FIRST_PORT - count
        with self._lock:
            for _ in range(span // count):
                first = _FIRST_PORT + (os.getpid() * 131 + self._taken) % span
                self._taken += count
                if all(_is_free(port) for port in range(first, first + count)):
                    return first
        raise OSError(f"No {count} ports in a row are free from {_FIRST_PORT} to {_LAST_PORT}.")


_PORTS = _Ports()


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((LOOPBACK, port)):
            return True
    except OSError:
        return False
