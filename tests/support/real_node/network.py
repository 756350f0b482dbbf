"""The network that joins this machine and its nodes: a bridge, a cable to each node, a route to each node's pods."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from support.limits import PATIENCE

BRIDGE = "cellsparse-br"
HOST = "10.250.0.1"
"""Where nodes and pods reach this machine."""
SERVICES = "10.96.0.0/16"


def node_address(number: int) -> str:
    """Return the address of node 1, 2, ..."""
    return f"10.250.0.{number + 1}"


def pod_range(number: int) -> str:
    """Return the addresses of a node's pods."""
    return f"10.244.{number}.0/24"


@contextmanager
def bridge() -> Iterator[None]:
    """Have the bridge, and services reached through the first node."""
    _delete(BRIDGE)
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    try:
        _run("ip", "addr", "add", f"{HOST}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        _run("ip", "route", "replace", SERVICES, "via", node_address(1))
        yield
    finally:
        _delete(BRIDGE)


def attach(number: int, pid: int) -> None:
    """Give the network namespace of a process a cable to the bridge, and this machine a route to its pods.

    Args:
        number: Of the node.
        pid: A process in its namespaces.
    """
    cable = f"cellsparse-{number}"
    _delete(cable)
    _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _run("ip", "link", "set", cable, "master", BRIDGE, "up")
    inside = ["nsenter", "--net", "--target", str(pid)]
    _run(*inside, "ip", "link", "set", "lo", "up")
    _run(*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    _run(*inside, "ip", "link", "set", "eth0", "up")
    _run(*inside, "ip", "addr", "add", f"{node_address(number)}/24", "dev", "eth0")
    _run(*inside, "ip", "route", "add", "default", "via", HOST)
    _run("ip", "route", "replace", pod_range(number), "via", node_address(number))


def set_cable(number: int, *, up: bool) -> None:
    """Cut the cable of a node, or mend it."""
    _run("ip", "link", "set", f"cellsparse-{number}", "up" if up else "down")


def _delete(device: str) -> None:
    """Delete the bridge with its routes, or a cable, if it is there: of a start that was killed, it may be."""
    subprocess.run(["ip", "link", "del", device], capture_output=True, timeout=PATIENCE, check=False)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
