"""Nodes for a control plane without kubelets: runs the command of every bound pod as a local process.

Each pod gets an address of its own in 127/8, so that pods on one machine may listen on the same port. An image is a
command line here; one that is not known can be pulled only if it is said to need no process: then it runs idle.
"""

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import urllib3
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kubernetes.client import ApiClient, CoordinationV1Api, CoreV1Api
from kubernetes.client.exceptions import ApiException
from support import pod_status
from support.pod_process import start_process

from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.watch import ResourceWatch

LEASE_SECONDS = 2.0
LOOK_SECONDS = 0.1
PROBE_SECONDS = 0.3
END_SECONDS = 10.0
SIZE = {"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti"}
_ADDRESSES = itertools.count(2)
Pod = dict[str, Any]


@dataclass
class Running:
    """A pod that was started here."""

    name: str
    node: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    """Port of its gRPC readiness probe; 0 without one."""
    probed: float = 0.0
    said: str = ""
    """The last status: running, ready, ended or stuck."""
    kill_at: float = 0.0
    why: dict[str, str] = field(default_factory=dict)
    """What a kubelet would say about its end, see `pod_status.ended`."""
    started: str = field(default_factory=pod_status.now)


class NodeAgent:
    """Plays the kubelets of some nodes for the pods of one namespace.

    Args:
        api: An administrator's client.
        namespace: Whose pods to run.
        folder: For volumes and logs.
        nodes: Extended resources by node name, such as {"gpu-0": {"nvidia.com/gpu": "2"}}.
        images: Command line by image; an empty one runs idle.
        environment: Variables of all processes, besides those of their pods.
        translate: See `start_process`.
    """

    def __init__(
        self,
        api: ApiClient,
        namespace: str,
        folder: Path,
        nodes: Mapping[str, Mapping[str, str]],
        images: Mapping[str, list[str]],
        *,
        environment: Mapping[str, str] | None = None,
        translate: Callable[[str], str] = lambda value: value,
    ) -> None:
        self._core = CoreV1Api(api)
        self._leases = CoordinationV1Api(api)
        self._namespace = namespace
        self._folder = folder
        self._nodes = dict(nodes)
        self._images = dict(images)
        self._start = partial(start_process, environment=environment or {}, translate=translate)
        self._running: dict[str, Running] = {}
        self._dead_nodes: set[str] = set()
        self._end = threading.Event()
        self._wake = threading.Event()
        self._pods = ObjectCache(lambda pod: "", lambda group: self._wake.set())
        self._watch = ResourceWatch(
            "bound pods", partial(self._core.list_namespaced_pod, namespace), lambda pod: pod, self._pods
        )
        self._threads = [
            threading.Thread(target=self._beat, name="node-leases", daemon=True),
            threading.Thread(target=self._work, name="node-pods", daemon=True),
        ]

    def __enter__(self) -> "NodeAgent":
        for name, resources in self._nodes.items():
            self._make_node(name, resources)
        for thread in (self._watch, *self._threads):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._watch.stop()
        self._wake.set()
        for thread in self._threads:
            thread.join(END_SECONDS)
        for pod in self._running.values():
            if pod.process is not None:
                _signal(pod.process, signal.SIGKILL)
        for name in self._nodes:
            _patiently(self._core.delete_node, name)

    def pods(self) -> list[Running]:
        """The pods that were started and are still there."""
        return list(self._running.values())

    def log(self, pod_name: str) -> str:
        """What a pod has printed."""
        return (self._find(pod_name).folder / "log").read_text()

    def kill(self, pod_name: str, **why: str) -> None:
        """SIGKILL a pod's process, as the kernel would; `why` goes into its status (see `pod_status.ended`)."""
        pod = self._find(pod_name)
        assert pod.process is not None
        pod.why = why
        _signal(pod.process, signal.SIGKILL)

    def lose(self, node: str) -> None:
        """Let a node die: no heartbeat, no status, and its processes are gone."""
        self._dead_nodes.add(node)
        for pod in self.pods():
            if pod.node == node and pod.process is not None:
                _signal(pod.process, signal.SIGKILL)

    def bring_back(self, node: str) -> None:
        """Let a lost node come back, as after a restart: its pods are ended, and what was to go goes."""
        self._dead_nodes.discard(node)

    def _find(self, pod_name: str) -> Running:
        return next(pod for pod in self.pods() if pod.name == pod_name)

    def _make_node(self, name: str, resources: Mapping[str, str]) -> None:
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        self._core.create_node({"metadata": {"name": name, "labels": labels}})
        self._renew(name)
        size = {**SIZE, **resources}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": pod_status.now()}
        self._core.patch_node_status(name, {"status": {"capacity": size, "allocatable": size, "conditions": [ready]}})

    def _renew(self, name: str) -> None:
        lease = {
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 8, "renewTime": pod_status.now(micro=True)},
        }
        try:
            self._leases.patch_namespaced_lease(name, "kube-node-lease", lease)
        except ApiException as error:
            if error.status != 404:
                raise
            self._leases.create_namespaced_lease("kube-node-lease", lease)

    def _beat(self) -> None:
        while not self._end.wait(LEASE_SECONDS):
            for name in self._nodes:
                if name not in self._dead_nodes:
                    _patiently(self._renew, name)

    def _work(self) -> None:
        while not self._end.is_set():
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            found = {pod["metadata"]["uid"]: pod for pod in self._pods.all()}
            for pod in found.values():
                node = pod["spec"].get("nodeName")
                if node in self._nodes and node not in self._dead_nodes:
                    _patiently(self._care, pod)
            for uid in [uid for uid in self._running if uid not in found]:
                gone = self._running.pop(uid)
                if gone.process is not None:
                    _signal(gone.process, signal.SIGKILL)

    def _care(self, pod: Pod) -> None:
        metadata, uid = pod["metadata"], pod["metadata"]["uid"]
        deleted = "deletionTimestamp" in metadata
        if uid not in self._running:
            if deleted or pod["status"]["phase"] in ("Succeeded", "Failed"):
                self._remove(pod)
                return
            self._begin(pod)
        running = self._running[uid]
        process = running.process
        code = process.poll() if process is not None else None
        if deleted and process is not None and code is None:
            self._ask_to_end(running, metadata.get("deletionGracePeriodSeconds", 0))
        elif code is not None and running.said != "ended":
            self._say(
                pod, running, "ended", pod_status.ended(pod, running.address, running.started, code, **running.why)
            )
        elif deleted:
            self._remove(pod)
        elif running.said in ("", "running"):
            self._say_how_it_runs(pod, running)

    def _begin(self, pod: Pod) -> None:
        number = next(_ADDRESSES)
        container = pod["spec"]["containers"][0]
        folder = self._folder / pod["metadata"]["uid"]
        folder.mkdir(parents=True, exist_ok=True)
        running = Running(
            name=pod["metadata"]["name"],
            node=pod["spec"]["nodeName"],
            address=f"127.1.{number // 250}.{number % 250 + 1}",
            folder=folder,
            port=container.get("readinessProbe", {}).get("grpc", {}).get("port", 0),
        )
        self._running[pod["metadata"]["uid"]] = running
        command = self._images.get(container["image"])
        if command is None:
            status = pod_status.waiting(pod, "ImagePullBackOff", "Back-off pulling image: not found")
            self._say(pod, running, "stuck", status)
        elif command:
            try:
                running.process = self._start(self._core, pod, running.address, folder, command)
            except (LookupError, ApiException) as error:
                self._say(pod, running, "stuck", pod_status.waiting(pod, "CreateContainerConfigError", str(error)))

    def _say_how_it_runs(self, pod: Pod, running: Running) -> None:
        ready = not running.process or not running.port
        if running.said and not ready and time.monotonic() - running.probed > PROBE_SECONDS:
            ready = _serves(f"{running.address}:{running.port}")
            running.probed = time.monotonic()
        what = "ready" if ready else "running"
        if what != running.said:
            status = pod_status.running(pod, running.address, running.started, ready=ready)
            self._say(pod, running, what, status)

    def _ask_to_end(self, running: Running, grace: float) -> None:
        assert running.process is not None
        if not running.kill_at:
            running.kill_at = time.monotonic() + grace
            # As in a container: the first process alone is told, SIGKILL ends all.
            running.process.terminate()
        elif time.monotonic() > running.kill_at:
            _signal(running.process, signal.SIGKILL)

    def _say(self, pod: Pod, running: Running, what: str, status: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        self._core.patch_namespaced_pod_status(metadata["name"], metadata["namespace"], {"status": status})
        running.said = what

    def _remove(self, pod: Pod) -> None:
        """Take a pod that was deleted, and runs no more, from the API server."""
        if "deletionTimestamp" in pod["metadata"]:
            name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
            self._core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
            self._running.pop(pod["metadata"]["uid"], None)


def _serves(address: str) -> bool:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=0.5)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _patiently(work: Callable[..., Any], *args: Any) -> None:
    """Call; where the object is gone, has changed meanwhile, or the API server is busy, the next round sees."""
    try:
        work(*args)
    except (ApiException, OSError, urllib3.exceptions.HTTPError) as error:
        if getattr(error, "status", 0) not in (404, 409):
            print(f"node agent: {error}")


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a process and what it started."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
    process.wait(END_SECONDS)
