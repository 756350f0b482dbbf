"""A cluster of one real node, and the chart installed on it from images of this commit."""

import base64
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from support.control_plane import ControlPlane, running_control_plane
from support.helm import CHART, helm
from support.limits import LONG_PATIENCE
from support.orchestrator import until
from support.real_node import network
from support.real_node.configuration import PAUSE
from support.real_node.gpus import advertised_gpus
from support.real_node.images import MINIO, OWN, POSTGRESQL, RELEASED
from support.real_node.layers import are_linkable, inspect, link_images
from support.real_node.node import RealNode, node_users, running_node
from support.real_node.requirements import find_requirements

from cellsparse.runs import Run

NAMESPACE = "imaging"
NAME = "lab-cellsparse"
PORT = 6443
"""Of the API server: one of those that the chart's NetworkPolicies open."""
VOLUMES = 6
"""Two for each of three releases."""
GPUS = 1
"""What each node advertises; none of them is real."""
NODES = 2
"""Most nodes that the control plane knows."""
IMAGES = (PAUSE, MINIO, POSTGRESQL, *OWN)
"""What every node has."""
VALUES: Mapping[str, Any] = {
    "images": {"registry": "localhost", "tag": "node", "pullPolicy": "Never"},
    "minio": {"image": MINIO},
    "orchestrator": {
        "serviceType": "NodePort",
        "fewerNodesSeconds": 10,
        "resources": {"requests": {"cpu": "150m"}},  # a training has 1; with less, it hardly starts beside one
    },
    "gateway": {"resources": {"requests": {"cpu": "50m"}}},
    "trainerDefaults": {"warmReplicas": 1, "gpu": {"count": 1}},
    "trainers": [{"backend": "unet"}, {"backend": "stardist", "warmReplicas": 0}],
}
"""What differs from the chart's value set of a laptop cluster. The node has no image of StarDist's trainer."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A control plane and its node."""

    plane: ControlPlane
    node: RealNode
    admin: client.ApiClient
    folder: Path


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start control plane, bridge and node, with what a cluster has before anybody installs anything."""
    find_requirements()
    docker = find_docker()
    with ExitStack() as stack:
        # Sockets need short paths, so pytest's own folder will not do.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="node-", ignore_cleanup_errors=True)))
        stack.enter_context(network.bridge())
        plane = stack.enter_context(
            running_control_plane(folder / "plane", address=network.HOST, port=PORT, users=node_users(NODES))
        )
        admin = stack.enter_context(plane.client("admin"))
        _storage(admin, folder / "volumes")
        node = stack.enter_context(_node_with_images(plane, folder, 1, docker))
        yield Cluster(plane=plane, node=node, admin=admin, folder=folder)


@contextmanager
def second_node(cluster: Cluster) -> Iterator[RealNode]:
    """Have another node in a cluster, with images of its own."""
    with _node_with_images(cluster.plane, cluster.folder, 2, find_docker()) as node:
        yield node
    # What it had is not waited for: the control plane would do so for minutes.
    core = client.CoreV1Api(cluster.admin)
    core.delete_node(node.name)
    for pod in core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node.name}").items:
        core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)


@contextmanager
def _node_with_images(plane: ControlPlane, folder: Path, number: int, docker: str) -> Iterator[RealNode]:
    own = Path(tempfile.mkdtemp(prefix=f"node{number}-", dir=folder))  # a node may be started again
    names = (*IMAGES, *released_images(docker))
    with running_node(plane, own, number=number) as node:
        link_images(node, dict(zip(names, inspect(docker, names), strict=True)))
        with advertised_gpus(node.device_plugins, GPUS):
            yield node


def find_docker() -> str:
    """Return the program whose daemon has the images; skip the test without one."""
    program = os.environ.get("DOCKER", "docker")
    found = inspect(program, IMAGES) if shutil.which(program) else []
    if not found:
        pytest.skip("No Docker daemon has the images of `make node-images`.")
    if not are_linkable(found):
        pytest.skip("Docker does not keep images as overlay2 does; nodes here read them from its folders.")
    return program


def released_images(docker: str) -> tuple[str, ...]:
    """Return the images of the last release; none where they could not be made."""
    return RELEASED if inspect(docker, RELEASED) else ()


def _storage(admin: client.ApiClient, folder: Path) -> None:
    """Make a StorageClass and the volumes that it gives: folders of this machine."""
    kind = {
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    client.StorageV1Api(admin).create_storage_class(kind)
    for number in range(VOLUMES):
        path = folder / str(number)
        path.mkdir(parents=True)
        path.chmod(0o777)  # as provisioners make them; fsGroup gives them to the pod's group
        here = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]}]}]
        spec = {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "standard",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": here}},
        }
        client.CoreV1Api(admin).create_persistent_volume({"metadata": {"name": f"disk-{number}"}, "spec": spec})


class Release:
    """The chart, installed as "lab" in a namespace that takes only pods of level "restricted".

    Args:
        cluster: Where.
        namespace: Of its own; it is made.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.core = client.CoreV1Api(cluster.admin)
        self._access = [f"--namespace={namespace}", f"--kubeconfig={cluster.plane.kubeconfig('admin')}"]
        level = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace({"metadata": {"name": namespace, "labels": level}})

    def helm(self, *arguments: str, seconds: float = LONG_PATIENCE) -> str:
        """Run helm on the release; fail the test with what the pods say if it fails."""
        done = helm(*arguments, *self._access, seconds=seconds)
        if done.returncode:
            pytest.fail(f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.state()}")
        return done.stdout

    def install(self, values: Mapping[str, Any], chart: Path = CHART) -> None:
        """Install it, or upgrade it, and wait until all pods are ready."""
        path = self.cluster.folder / f"values-{self.namespace}.json"
        path.write_text(json.dumps(values))
        files = [f"--values={chart / 'ci' / 'cpu-trial.yaml'}", f"--values={path}"]
        timeout = f"--timeout={LONG_PATIENCE:.0f}s"
        self.helm("upgrade", "--install", "lab", str(chart), *files, "--wait", timeout, seconds=LONG_PATIENCE + 60)

    def state(self) -> str:
        """Return what the pods are doing, and the end of their logs."""
        lines = []
        for pod in self.core.list_namespaced_pod(self.namespace).items:
            lines.append(f"{pod.metadata.name}: {pod.status.phase}, {pod.status.container_statuses}")
            try:
                lines.append(self.core.read_namespaced_pod_log(pod.metadata.name, self.namespace, tail_lines=30))
            except client.ApiException as error:
                lines.append(str(error.reason))
        events = self.core.list_namespaced_event(self.namespace).items
        return "\n".join([*lines, *(f"{event.involved_object.name}: {event.message}" for event in events[-30:])])

    def pods(self, component: str) -> list[Any]:
        """Return the pods of a component, such as orchestrator or trainer, but for those that are being deleted."""
        selector = f"app.kubernetes.io/component={component}"
        found = self.core.list_namespaced_pod(self.namespace, label_selector=selector).items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]

    def pods_of(self, run: Run) -> list[Any]:
        """Return the pods that a run trains in."""
        pods = self.core.list_namespaced_pod(self.namespace).items
        return [pod for pod in pods if pod.metadata.name.startswith(run.id)]

    def run_in(self, pod: str, *command: str) -> tuple[int, str]:
        """Run a command in a pod's container by the container runtime; return its exit code and output."""
        container = self._container(pod)
        name = f"test-{time.monotonic_ns()}"
        done = self.cluster.node.run(
            "ctr", "--namespace=k8s.io", "tasks", "exec", f"--exec-id={name}", container, *command
        )
        return done.returncode, done.stdout + done.stderr

    def kill(self, pod: str) -> None:
        """Kill the processes of a pod's container, as a crash or the OOM killer would."""
        container = self._container(pod)
        self.cluster.node.run("ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", "--all", container)

    def _container(self, pod: str) -> str:
        """Return the id that the container runtime knows a pod's container by."""
        (status,) = self.core.read_namespaced_pod(pod, self.namespace).status.container_statuses
        return str(status.container_id.removeprefix("containerd://"))

    def secret(self, name: str, key: str) -> str:
        """Return what a Secret holds."""
        return base64.b64decode(self.core.read_namespaced_secret(name, self.namespace).data[key]).decode()

    def set_secret(self, name: str, **values: str) -> None:
        """Change what a Secret holds, as `kubectl patch` does."""
        self.core.patch_namespaced_secret(name, self.namespace, {"stringData": values})

    def restart(self) -> None:
        """Start all pods anew, as `kubectl rollout restart` does, and wait until they are ready."""
        apps = client.AppsV1Api(self.cluster.admin)
        annotation = {"kubectl.kubernetes.io/restartedAt": str(time.time())}
        patch = {"spec": {"template": {"metadata": {"annotations": annotation}}}}
        for each in apps.list_namespaced_stateful_set(self.namespace).items:
            apps.patch_namespaced_stateful_set(each.metadata.name, self.namespace, patch)
        for each in apps.list_namespaced_deployment(self.namespace).items:
            apps.patch_namespaced_deployment(each.metadata.name, self.namespace, patch)
        until(lambda: all(map(_rolled_out, self.workloads())), LONG_PATIENCE)

    def workloads(self) -> list[Any]:
        """Return the release's Deployments and StatefulSets."""
        apps = client.AppsV1Api(self.cluster.admin)
        found = (
            apps.list_namespaced_stateful_set(self.namespace).items,
            apps.list_namespaced_deployment(self.namespace).items,
        )
        return [each for some in found for each in some]

    def address(self) -> str:
        """Return where this machine reaches the orchestrator."""
        service = self.core.read_namespaced_service(f"{NAME}-orchestrator", self.namespace)
        port = next(port.node_port for port in service.spec.ports if port.port == 50050)
        return f"{network.node_address(1)}:{port}"

    def environment(self) -> dict[str, str]:
        """Return the variables with which a client on this machine reaches the orchestrator."""
        authority = self.cluster.folder / f"ca-{self.namespace}.crt"
        authority.write_text(self.secret(f"{NAME}-tls-orchestrator", "ca.crt"))
        return {
            "CELLSPARSE_ADDRESS": self.address(),
            "CELLSPARSE_TOKEN": self.secret(f"{NAME}-admin", "token"),
            "CELLSPARSE_TLS_CA": str(authority),
            "CELLSPARSE_TLS_SERVER_NAME": f"{NAME}-orchestrator",
        }


def _rolled_out(workload: Any) -> bool:
    """Whether all pods of a Deployment or a StatefulSet are of its newest kind and ready."""
    wanted, status = workload.spec.replicas, workload.status
    seen = (status.observed_generation or 0) >= workload.metadata.generation
    counts = (status.updated_replicas or 0, status.ready_replicas or 0, status.replicas or 0)
    return seen and counts == (wanted, wanted, wanted)
