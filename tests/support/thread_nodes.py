"""Nodes whose pods are threads: each bound pod is a `TinyTrainer` at an address of its own.

Light enough for many nodes and pods on a small machine, and quick: what is measured with them is what the control plane
and the orchestrator need. What a kubelet needs to pull an image and to start a process is not in it.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from support import pod_status
from support.tiny_trainer import TinyTrainer

LEASE_SECONDS = 2.0
WATCH_SECONDS = 60
_ADDRESSES = itertools.count(2)


@dataclass
class Pod:
    """A pod and what became of it; times are those of `time.monotonic`."""

    name: str
    run_id: str
    attempt: int
    node: str
    gpu: int
    """Which of the node's GPUs, from 0: the one that was free for the longest time."""
    bound: float
    trainer: TinyTrainer
    seen: float
    """When it was first there, bound or not."""
    running: float = 0.0
    told_to_end: float = 0.0
    gone: float = 0.0
    """0 while it is there."""


@dataclass
class Placed:
    """How many pods held a place after each change that the API showed, on all nodes and on the fullest one."""

    total: list[int] = field(default_factory=list)
    fullest: list[int] = field(default_factory=list)


class ThreadNodes:
    """Plays the kubelets of some equal nodes for the pods of one namespace.

    Args:
        api: An administrator's client.
        namespace: The pods' namespace.
        names: The nodes.
        gpus: GPUs of each.
        port: Where the pods' trainers listen.
    """

    def __init__(self, api: client.ApiClient, namespace: str, names: list[str], gpus: int, port: int) -> None:
        self._core = client.CoreV1Api(api)
        self._leases = client.CoordinationV1Api(api)
        self._namespace = namespace
        self._names = names
        self._gpus = gpus
        self._port = port
        self._lost: set[str] = set()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._work)]
        self.pods: dict[str, Pod] = {}
        """All pods that were ever bound, by uid."""
        self.placed = Placed()
        self._seen: dict[str, float] = {}

    def __enter__(self) -> "ThreadNodes":
        for name in self._names:
            labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
            self._core.create_node({"metadata": {"name": name, "labels": labels}})
            size = {"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti"}
            size["nvidia.com/gpu"] = str(self._gpus)
            self._core.patch_node_status(name, {"status": {"capacity": size, "allocatable": size}})
            self._say_ready(name)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for pod in self.pods.values():
            pod.trainer.stop()
        for name in self._names:
            _patiently(self._core.delete_node, name)
        for pod in self.pods.values():
            if not pod.gone:
                _patiently(self._core.delete_namespaced_pod, pod.name, self._namespace, grace_period_seconds=0)
        self._threads[0].join(LEASE_SECONDS + 5)

    def lose(self, name: str) -> list[Pod]:
        """Let a node die with all that runs on it: no heartbeat and no status any more; return its pods."""
        self._lost.add(name)
        found = [pod for pod in self.pods.values() if pod.node == name and not pod.gone]
        for pod in found:
            pod.trainer.stop()
        return found

    def take_away(self, name: str) -> None:
        """Remove a node that was lost for good, and its pods, as an administrator does."""
        self._core.delete_node(name)
        for pod in self.pods.values():
            if pod.node == name and not pod.gone:
                _patiently(self._core.delete_namespaced_pod, pod.name, self._namespace, grace_period_seconds=0)

    def _say_ready(self, name: str) -> None:
        condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": pod_status.now()}
        self._core.patch_node_status(name, {"status": {"conditions": [condition]}})
        lease = {
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 8, "renewTime": pod_status.now(micro=True)},
        }
        try:
            self._leases.replace_namespaced_lease(name, "kube-node-lease", lease)
        except ApiException as error:
            if error.status != 404:
                raise
            self._leases.create_namespaced_lease("kube-node-lease", lease)

    def _beat(self) -> None:
        while not self._end.wait(LEASE_SECONDS):
            for name in self._names:
                if name not in self._lost and not self._end.is_set():
                    _patiently(self._say_ready, name)

    def _work(self) -> None:
        listing = partial(self._core.list_namespaced_pod, self._namespace)
        for kind, found in watch(listing, self._end):
            self._note(kind, found)
            node = found["spec"].get("nodeName", "")
            if node in self._names and node not in self._lost:
                _patiently(self._care, kind, found)

    def _note(self, kind: str, found: Any) -> None:
        uid = found["metadata"]["uid"]
        seen = self._seen.setdefault(uid, time.monotonic())
        if kind == "DELETED" and uid in self.pods:
            self.pods[uid].gone = self.pods[uid].gone or time.monotonic()
        node = found["spec"].get("nodeName", "")
        if kind != "DELETED" and node in self._names and uid not in self.pods:
            labels = found["metadata"]["labels"]
            self.pods[uid] = Pod(
                name=found["metadata"]["name"],
                run_id=labels["cellsparse.dev/run"],
                attempt=int(labels["cellsparse.dev/attempt"]),
                node=node,
                gpu=self._free_gpu(node),
                bound=time.monotonic(),
                trainer=TinyTrainer(f"{_address(next(_ADDRESSES))}:{self._port}"),
                seen=seen,
            )
        there = [pod.node for pod in self.pods.values() if not pod.gone and pod.node not in self._lost]
        self.placed.total.append(len(there))
        self.placed.fullest.append(max((there.count(name) for name in self._names), default=0))

    def _free_gpu(self, node: str) -> int:
        """Return the node's GPU that was free for the longest time; one past the last if too many were placed."""
        last: dict[int, float] = {}
        for pod in self.pods.values():
            if pod.node == node:
                last[pod.gpu] = max(last.get(pod.gpu, 0.0), pod.gone or float("inf"))
        free = [gpu for gpu in range(self._gpus) if last.get(gpu, 0.0) != float("inf")]
        return min(free, key=lambda gpu: last.get(gpu, 0.0)) if free else self._gpus

    def _care(self, kind: str, found: Any) -> None:
        pod = self.pods[found["metadata"]["uid"]]
        if kind == "DELETED" or pod.gone:
            pod.trainer.stop()
        elif found["metadata"].get("deletionTimestamp"):
            if not pod.told_to_end:
                pod.told_to_end = time.monotonic()
                pod.trainer.stop()
                self._core.delete_namespaced_pod(pod.name, self._namespace, grace_period_seconds=0)
        elif not pod.running:
            status = pod_status.running(found, pod.trainer.host, pod_status.now(), ready=True)
            self._core.patch_namespaced_pod_status(pod.name, self._namespace, {"status": status})
            pod.running = time.monotonic()


def watch(listing: Callable[..., Any], end: threading.Event) -> Iterator[tuple[str, Any]]:
    """Yield (type, object as JSON) of all that is there and of all that happens to it, until `end`."""
    page = json.loads(listing(_preload_content=False).data)
    for item in page["items"]:
        yield "ADDED", item
    version = page["metadata"]["resourceVersion"]
    while not end.is_set():
        options = {"watch": True, "resource_version": version, "allow_watch_bookmarks": True}
        try:
            response = listing(**options, timeout_seconds=WATCH_SECONDS, _preload_content=False)
            pending = b""
            for chunk in response.stream(2**16):
                *lines, pending = (pending + chunk).split(b"\n")
                for event in map(json.loads, lines):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
                if end.is_set():
                    return
        except (ApiException, urllib3.exceptions.HTTPError, OSError):
            if not end.wait(0.5):
                continue


def _address(number: int) -> str:
    return f"127.2.{number // 250}.{number % 250 + 1}"


def _patiently(work: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Call; what is gone, or cannot be done now, is seen by the next event."""
    with suppress(ApiException, urllib3.exceptions.HTTPError, OSError):
        work(*args, **options)
