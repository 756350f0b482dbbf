"""Two network namespaces as nodes: each with an address of its own, on a link that can be slow, or cut."""

import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_NUMBERS = itertools.count()
_HOSTS = Path("/etc/netns")


@dataclass(frozen=True, kw_only=True)
class TwoNodes:
    """Two nodes that reach each other, and that this process reaches."""

    names: tuple[str, str]
    addresses: tuple[str, str]

    def inside(self, node: int, command: Sequence[str]) -> list[str]:
        """Return a command that runs another one on a node."""
        return ["ip", "netns", "exec", self.names[node], *command]

    def cut(self, node: int) -> None:
        """Pull a node's cable; packets vanish, no connection is closed."""
        _run("ip", "link", "set", f"{self.names[node]}v", "down")

    def join(self, node: int) -> None:
        """Plug it in again."""
        _run("ip", "link", "set", f"{self.names[node]}v", "up")


def missing() -> str:
    """Return why there can be no such nodes here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    name = f"cs{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "this kernel lets nobody make network namespaces"
    _run("ip", "netns", "del", name)
    return ""


@contextmanager
def two_nodes(rate: str = "") -> Iterator[TwoNodes]:
    """Make two nodes on one switch.

    Args:
        rate: What each node can send and receive, as tc writes it, such as "100mbit"; empty: no limit.
    """
    number = (os.getpid() * 7 + next(_NUMBERS)) % 250
    bridge, net = f"cs{number}b", f"10.213.{number}"
    names = (f"cs{number}n0", f"cs{number}n1")
    addresses = (f"{net}.1", f"{net}.2")
    with ExitStack() as stack:
        _run("ip", "link", "add", bridge, "type", "bridge")
        stack.callback(_run, "ip", "link", "del", bridge)
        _run("ip", "address", "add", f"{net}.254/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for name, address in zip(names, addresses, strict=True):
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "del", name)
            # Its own name leads to its own address, as in a pod.
            (_HOSTS / name).mkdir(parents=True, exist_ok=True)
            stack.callback(shutil.rmtree, _HOSTS / name, ignore_errors=True)
            (_HOSTS / name / "hosts").write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")
            _run("ip", "link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "link", "set", f"{name}v", "master", bridge, "up")
            inside = ("ip", "-n", name)
            _run(*inside, "address", "add", f"{address}/24", "dev", "eth0")
            _run(*inside, "link", "set", "eth0", "up")
            _run(*inside, "link", "set", "lo", "up")
            if rate:
                limit = ("root", "tbf", "rate", rate, "burst", "512kb", "latency", "100ms")
                _run("tc", "qdisc", "add", "dev", f"{name}v", *limit)
                _run("tc", "-n", name, "qdisc", "add", "dev", "eth0", *limit)
        yield TwoNodes(names=names, addresses=addresses)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
