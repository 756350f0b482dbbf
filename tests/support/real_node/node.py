"""A kubelet with containerd, kube-proxy, name server and NetworkPolicies, in namespaces of its own on this machine.

Nothing of the machine changes but a bridge (see `network.py`) and a folder of cgroups; both go when the node ends. What
ends the node's first process ends everything in it. Images are kept from one start to the next.
"""

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from support.control_plane import BIN, ControlPlane
from support.limits import PATIENCE
from support.real_node import network
from support.real_node.cgroups import make_cgroups, remove_cgroup
from support.real_node.configuration import configure

HERE = Path(__file__).parent
IMPORT_SECONDS = 1800.0
"""For an image of several gigabytes on a busy disk."""
USERS = {"system:kube-proxy": "", "coredns": "system:masters", "netpol": "system:masters"}
"""Users of the programs that are the same on every node, with their groups."""


def cache_folder() -> Path:
    """Where images and programs outlive the tree."""
    return Path(os.environ.get("CELLSPARSE_CACHE") or Path.home() / ".cache" / "cellsparse") / "node"


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
        self.kept = cache_folder() / self.name
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

    def run(self, *command: str, seconds: float = PATIENCE, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the node's namespaces; the caller judges its exit code."""
        inside = ["nsenter", "--mount", "--net", "--pid", "--uts", f"--target={self.pid}", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=seconds, check=False, **options)

    def import_images(self, docker: str, references: Sequence[str]) -> None:
        """Copy images from Docker's store to the node's, but for those that are there already.

        Raises:
            RuntimeError: They cannot be copied.
        """
        notes = self.kept / "images.json"
        there = json.loads(notes.read_text()) if notes.exists() else {}
        listed = self._ctr("images", "list", "--quiet").split()
        wanted = {reference: _image_id(docker, reference) for reference in references}
        stale = [name for name, found in wanted.items() if name not in listed or there.get(name) != found]
        if not stale:
            return
        save = subprocess.Popen([docker, "save", *stale], stdout=subprocess.PIPE)  # together: they share layers
        self._ctr("images", "import", "-", seconds=IMPORT_SECONDS, stdin=save.stdout)
        if save.wait(PATIENCE):
            raise RuntimeError(f"`docker save` failed with exit code {save.returncode}.")
        notes.write_text(json.dumps(wanted))

    def _ctr(self, *arguments: str, seconds: float = PATIENCE, **options: Any) -> str:
        done = self.run("ctr", "--namespace=k8s.io", *arguments, seconds=seconds, **options)
        if done.returncode:
            raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        return done.stdout


@contextmanager
def running_node(plane: ControlPlane, folder: Path, *, number: int = 1) -> Iterator[RealNode]:
    """Start a node, wait until it is Ready, and end it on the way out.

    Args:
        plane: Its control plane, which listens at `network.HOST` and knows `node_users`; `network.bridge` is there.
        folder: An empty folder with a short path: sockets lie in it.
        number: 1, 2, ...
    """
    kept = cache_folder() / f"node{number}"
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two starts at once would write into the same store of images
        configure(plane, folder, number)
        groups = make_cgroups(number)
        process = _start(folder, kept, number)
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


def _image_id(docker: str, reference: str) -> str:
    asked = [docker, "image", "inspect", "--format={{.Id}}", reference]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise RuntimeError(f"Docker has no image {reference}; `make node-images` makes it.")
    return done.stdout.strip()


def _start(folder: Path, kept: Path, number: int) -> subprocess.Popen[bytes]:
    variables = {"NODE": str(folder), "KEPT": str(kept), "BIN": str(BIN), "NAME": f"node{number}"}
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
