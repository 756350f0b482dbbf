"""A kubelet with containerd, kube-proxy, name server and NetworkPolicies, in namespaces of its own on this machine.

Nothing of the machine changes but a bridge (see `network.py`) and a folder of cgroups; both go when the node ends. What
ends the node's first process ends everything in it.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from support.control_plane import BIN, ControlPlane
from support.limits import PATIENCE
from support.real_node import network
from support.real_node.cgroups import make_cgroups, remove_cgroup
from support.real_node.configuration import configure

HERE = Path(__file__).parent
USERS = {"system:kube-proxy": "", "coredns": "system:masters", "netpol": "system:masters"}
"""Users of the programs that are the same on every node, with their groups."""


def node_users(count: int) -> dict[str, str]:
    """Return the users that a control plane has to know for nodes 1 to `count`, with their groups."""
    return {**USERS, **{f"system:node:node{number}": "system:nodes" for number in range(1, count + 1)}}


class RealNode:
    """A running node.

    Args:
        number: 1, 2, ...
        folder: An empty folder for this start.
        process: `unshare`, whose child is process 1 of the node.
    """

    def __init__(self, number: int, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.number = number
        self.name = f"node{number}"
        self.folder = folder
        self._process = process

    @property
    def pid(self) -> int:
        """Process 1 of the node, as this machine counts."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            if found := children.read_text().split():
                return int(found[0])
            time.sleep(0.05)
        pytest.fail(f"the namespaces of {self.name} were not made: {self.log('node')}")

    @property
    def device_plugins(self) -> Path:
        """Folder in which the kubelet looks for plugins."""
        return self.folder / "kubelet" / "device-plugins"

    def log(self, program: str) -> str:
        """Return the end of a program's log: node, containerd, kubelet, kube-proxy, coredns or netpol."""
        path = self.folder / f"{program}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the node's namespaces; the caller judges its exit code."""
        inside = ["nsenter", "--mount", "--net", "--pid", "--uts", f"--target={self.pid}", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def running_node(plane: ControlPlane, folder: Path, *, number: int) -> Iterator[RealNode]:
    """Start a node, wait until it is Ready, and end it on the way out.

    Args:
        plane: Its control plane, which listens at `network.HOST` and knows `node_users`; `network.bridge` is there.
        folder: An empty folder with a short path: sockets lie in it.
        number: 1, 2, ...
    """
    configure(plane, folder, number)
    groups = make_cgroups(number)
    process = _start(folder, number)
    node = RealNode(number, folder, process)
    try:
        network.attach(number, node.pid)
        _wait_ready(plane, node)
        yield node
    finally:
        process.kill()  # --kill-child: the node's first process ends with it, and all others with that
        process.wait(PATIENCE)
        for group in groups:
            remove_cgroup(group)


def _start(folder: Path, number: int) -> subprocess.Popen[bytes]:
    variables = {"NODE": str(folder), "BIN": str(BIN), "NAME": f"node{number}"}
    environment = {**os.environ, **variables, "ADDRESS": network.node_address(number)}
    spaces = ["--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "node.log").open("ab") as log:
        return subprocess.Popen(
            ["unshare", *spaces, "--propagation=private", str(HERE / "inside.sh")],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _wait_ready(plane: ControlPlane, node: RealNode) -> None:
    end = time.monotonic() + PATIENCE
    with plane.client("admin") as api:
        core = CoreV1Api(api)
        while time.monotonic() < end:
            with suppress(ApiException):
                conditions = core.read_node(node.name).status.conditions or []
                if any(each.type == "Ready" and each.status == "True" for each in conditions):
                    return
            time.sleep(0.2)
    pytest.fail(f"{node.name} did not get ready: {node.log('node')}{node.log('kubelet')}{node.log('containerd')}")
