"""What an orchestrator with many Jobs costs: its processor time, its memory, and what it asks of the API server."""

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from kubernetes import client
from support.control_plane import AUDIT, ControlPlane
from support.limits import PATIENCE
from support.orchestrator import Orchestrator

from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2

WATCHED = ("jobs", "pods", "events")
BEARS = [{"key": f"node.kubernetes.io/{taint}", "operator": "Exists"} for taint in ("not-ready", "unreachable")]
"""Tolerations of a node without a kubelet."""
VERBS = ("LIST", "WATCH", "GET", "POST", "DELETE")
_VERBS = {"list": "LIST", "watch": "WATCH", "get": "GET", "create": "POST", "delete": "DELETE"}
_AUDIT_SECONDS = 0.5
"""Until what was asked is surely written down."""
_ASKED_AT_ONCE = 4
SAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one process over some time."""

    seconds: float
    cpu_seconds: float
    rss_mib: list[float]
    """At the beginning, at the end, and at equal times between."""
    requests: dict[str, int]
    """What it asked of the API server about Jobs, pods and events: counts by "LIST jobs" and the like."""

    @property
    def cores(self) -> float:
        """Share of one core."""
        return self.cpu_seconds / self.seconds

    @property
    def growth_mib(self) -> float:
        """How much more memory it had at the end than halfway."""
        return self.rss_mib[-1] - self.rss_mib[SAMPLES // 2]


def requests(plane: ControlPlane, namespace: str) -> Counter[str]:
    """Return how often a namespace's ServiceAccounts asked the API server, by verb and resource, as its audit log says.

    The cluster's own controllers are not counted: they list pods, too, where a namespace is deleted for example.
    """
    first: dict[str, str] = {}
    for line in (plane.folder / AUDIT).read_text().splitlines():
        event = json.loads(line)
        if event["user"]["username"].startswith(f"system:serviceaccount:{namespace}:"):
            about = event.get("objectRef", {}).get("resource", "")
            first[event["auditID"]] = f"{_VERBS.get(event['verb'], event['verb'])} {about}"
    return Counter(first.values())


@contextmanager
def counted(plane: ControlPlane, namespace: str, counts: dict[str, int]):
    """Put into `counts` what a namespace's ServiceAccounts ask about Jobs, pods and events within the `with` block."""
    before = requests(plane, namespace)
    yield
    time.sleep(_AUDIT_SECONDS)
    after = requests(plane, namespace)
    counts.update(
        {f"{verb} {kind}": after[f"{verb} {kind}"] - before[f"{verb} {kind}"] for verb in VERBS for kind in WATCHED}
    )


def measure(plane: ControlPlane, namespace: str, pid: int, seconds: float) -> Cost:
    """Watch a process, which speaks to the cluster as a ServiceAccount of the namespace, for some time."""
    process, counts, sizes = psutil.Process(pid), {}, []
    with counted(plane, namespace, counts):
        cpu, began = process.cpu_times(), time.monotonic()
        for _ in range(SAMPLES):
            sizes.append(process.memory_info().rss / 2**20)
            time.sleep(seconds / SAMPLES)
        after, lasted = process.cpu_times(), time.monotonic() - began
        sizes.append(process.memory_info().rss / 2**20)
    return Cost(
        seconds=lasted, cpu_seconds=after.user + after.system - cpu.user - cpu.system, rss_mib=sizes, requests=counts
    )


@contextmanager
def wide_node(api: client.ApiClient, name: str):
    """A node with room for all, on which nothing ever starts: pods that bear `BEARS` are placed there and wait."""
    core = client.CoreV1Api(api)
    core.create_node({"metadata": {"name": name}})
    size = {"cpu": "100k", "memory": "100Ti", "pods": "20k", "ephemeral-storage": "1Pi", "nvidia.com/gpu": "20k"}
    core.patch_node_status(name, {"status": {"capacity": size, "allocatable": size}})
    try:
        yield
    finally:
        core.delete_node(name)


def queue_runs(there: Orchestrator, dataset_id: str, count: int) -> list[str]:
    """Ask for runs; return their ids."""
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
    request = orchestrator_pb2.CreateRunRequest(dataset_id=dataset_id, settings=settings)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        return list(threads.map(lambda _: there.runs.CreateRun(request, timeout=PATIENCE).run.id, range(count)))


def count(listing, *args) -> int:
    """Return how many objects there are, without reading them."""
    page = listing(*args, limit=1)
    return len(page.items) + (page.metadata.remaining_item_count or 0)


def wait_for_pods(api: client.ApiClient, namespace: str, wanted: int, seconds: float) -> float:
    """Wait until so many Jobs have a pod each; return how long it took, seconds."""
    batch, core, began = client.BatchV1Api(api), client.CoreV1Api(api), time.monotonic()
    while (there := (count(batch.list_namespaced_job, namespace), count(core.list_namespaced_pod, namespace))) != (
        wanted,
        wanted,
    ):
        assert time.monotonic() - began < seconds, f"{there} Jobs and pods instead of {wanted}"
        time.sleep(1.0)
    return time.monotonic() - began


def wait_for_rest(pid: int, share: float, seconds: float) -> float:
    """Wait until a process takes less than a share of a core for five seconds; return how long that took."""
    process, began = psutil.Process(pid), time.monotonic()
    while (percent := process.cpu_percent(5.0)) > 100 * share:
        assert time.monotonic() - began < seconds, f"it did not come to rest: it takes {percent:.0f} % of a core"
    return time.monotonic() - began
