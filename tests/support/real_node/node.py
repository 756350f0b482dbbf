"""A kubelet with containerd, kube-proxy, name server and NetworkPolicies, in namespaces of its own on this machine.

Nothing of the machine changes but a bridge (see `network.py`) and a folder of cgroups; both go when the node ends. What
ends the node's first process ends everything in it. Images are kept from one start to the next.
"""

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from support.control_plane import BIN, ControlPlane
from support.limits import PATIENCE
from support.real_node import network
from support.real_node.requirements import CGROUPS, CNI_PLUGINS, CONTROLLERS

HERE = Path(__file__).parent
PAUSE = "localhost/pause:1"
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
        _configure(plane, folder, number)
        groups = _make_cgroups(number)
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
                _remove_cgroup(group)


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


def _configure(plane: ControlPlane, folder: Path, number: int) -> None:
    """Write what the node's programs read."""
    users = {"kubelet": f"system:node:node{number}", "kube-proxy": "system:kube-proxy"}
    for program, user in {**users, "coredns": "coredns", "netpol": "netpol"}.items():
        (folder / f"{program}.kubeconfig").write_text(plane.kubeconfig(user).read_text())
    (folder / "containerd.toml").write_text(_containerd(folder))
    (folder / "cni").mkdir()
    (folder / "cni" / "10-node.conflist").write_text(json.dumps(_pod_network(number)))
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(number)))
    (folder / "kube-proxy.yaml").write_text(yaml.safe_dump(_kube_proxy(folder)))
    (folder / "Corefile").write_text(_name_server(folder))


def _containerd(folder: Path) -> str:
    """Return the configuration of containerd 1.6, which Debian 12 has.

    Without CAP_SYS_RESOURCE, as in some virtual machines, no sandbox starts unless scores of the OOM killer are
    restricted.
    """
    plugin = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[{plugin}]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
[{plugin}.cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{folder / "cni"}"
[{plugin}.containerd]
  snapshotter = "overlayfs"
  discard_unpacked_layers = true
[{plugin}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{plugin}.containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def _pod_network(number: int) -> Mapping[str, Any]:
    address = {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": network.pod_range(number)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    cable = {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": address}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "node", "plugins": [cable, ports]}


def _kubelet(number: int) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        # Only this machine reaches it.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{_group_name(number)}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [network.node_address(number)],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "nodeLeaseDurationSeconds": 4,
        "nodeStatusUpdateFrequency": "2s",
        "imageGCHighThresholdPercent": 100,  # images are kept for the next start
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "enforceNodeAllocatable": ["pods"],
        "serializeImagePulls": False,
        "readOnlyPort": 0,
    }


def _kube_proxy(folder: Path) -> Mapping[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(folder / "kube-proxy.kubeconfig")},
        "mode": "nftables",
        "clusterCIDR": "10.244.0.0/16",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "",
        "metricsBindAddress": "",
    }


def _name_server(folder: Path) -> str:
    """Return CoreDNS's configuration: names of the cluster, and no others."""
    return f"""cluster.local:53 {{
    errors
    kubernetes cluster.local {{
        kubeconfig {folder / "coredns.kubeconfig"}
        pods insecure
    }}
}}
.:53 {{
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def _group_name(number: int) -> str:
    return f"cellsparse-node{number}"


def _make_cgroups(number: int) -> list[Path]:
    groups = [CGROUPS / controller / _group_name(number) for controller in (*CONTROLLERS, "unified")]
    for group in groups:
        _remove_cgroup(group)  # of a start that was killed
        if group.parent.name != "unified":  # containerd makes that one
            group.mkdir(exist_ok=True)
        if group.parent.name == "cpuset":
            for name in ("cpuset.cpus", "cpuset.mems"):  # an empty set takes no process
                (group / name).write_text((group.parent / name).read_text())
    return groups


def _remove_cgroup(group: Path) -> None:
    """Remove a folder of cgroups whose processes have ended or are ending."""
    end = time.monotonic() + PATIENCE
    while group.is_dir() and time.monotonic() < end:
        for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            group.rmdir()
        time.sleep(0.1)
