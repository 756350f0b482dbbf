"""An orchestrator that makes Jobs in a real cluster's namespace, with no more rights there than it needs."""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import ApiClient, AppsV1Api, BatchV1Api, CoreV1Api, NetworkingV1Api, RbacAuthorizationV1Api
from support.control_plane import ControlPlane
from support.orchestrator import Orchestrator, until

from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest, job
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings, TrainerTemplate

NAME = "cellsparse"
TRAINER_PORT = 50054
MEMORY = Path("/dev/shm")
FAKE_IMAGE = "fake-trainer"
IMAGES = {FAKE_IMAGE: [sys.executable, "-m", "support.cellsparse_fake"]}
RULES = [
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "list", "watch", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["create", "get", "list", "delete"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["create", "get"]},
]
"""What the chart's Role allows the orchestrator; a test of the chart compares them."""
QUEUE_RULE = {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["list", "watch"]}
"""What it allows besides where Kueue admits Jobs."""


def trainer(backend: str, image: str = FAKE_IMAGE, *, gpus: int = 1, **fields: Any) -> dict[str, Any]:
    """How the pods of a backend look, with GPUs that test nodes have."""
    return {
        "backend": backend,
        "image": image,
        "port": TRAINER_PORT,
        "gpu": {"resource": "nvidia.com/gpu", "count": gpus},
        "grace_seconds": 20,
        **fields,
    }


def give_rights(admin: ApiClient, namespace: str) -> None:
    """Make the orchestrator's ServiceAccount, Role and Service."""
    core, rbac = CoreV1Api(admin), RbacAuthorizationV1Api(admin)
    metadata = {"name": NAME}
    core.create_namespaced_service_account(namespace, {"metadata": metadata})
    rbac.create_namespaced_role(namespace, {"metadata": metadata, "rules": [*RULES, QUEUE_RULE]})
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}
    rbac.create_namespaced_role_binding(namespace, {"metadata": metadata, "roleRef": role, "subjects": [subject]})
    core.create_namespaced_service(namespace, {"metadata": metadata, "spec": {"ports": [{"port": 50050}]}})


@contextmanager
def folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """Give a home for an orchestrator that is timed: a disk that others keep busy makes SQLite wait for seconds.

    Args:
        otherwise: The folder to use where memory cannot be one.
    """
    if not MEMORY.is_dir():
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def cluster_orchestrator(
    plane: ControlPlane, namespace: str, home: Path, settings: Mapping[str, Any], **environment: str
) -> Orchestrator:
    """Return an orchestrator process to be started, that speaks to the cluster as its ServiceAccount.

    Args:
        plane: The cluster, where `give_rights` was called.
        namespace: Where its Jobs go.
        home: Its folder; the object store is in it.
        settings: Fields of ClusterSettings besides the usual ones.
        environment: More of its settings.
    """
    home.mkdir(parents=True, exist_ok=True)
    cluster_file = home / "cluster.yaml"
    cluster_file.write_text(yaml.safe_dump(cluster_fields(namespace, home, settings)))
    token = plane.service_account_token(namespace, NAME)
    return Orchestrator(
        home,
        CELLSPARSE_LAUNCHER="kubernetes",
        CELLSPARSE_CLUSTER_FILE=str(cluster_file),
        CELLSPARSE_KUBECONFIG=str(plane.kubeconfig(f"{namespace}-{NAME}", token)),
        **environment,
    )


def cluster_fields(namespace: str, home: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ClusterSettings, the object store being in `home` unless `settings` say otherwise."""
    store = {"CELLSPARSE_STORE_URL": (home / "store").as_uri()}
    return {"namespace": namespace, "instance": NAME, "owner_service": NAME, "environment": store, **settings}


def left_behind(admin: ApiClient, namespace: str) -> list[str]:
    """What there is in a namespace besides what `give_rights` and the cluster itself made: "kind/name"."""
    core, batch = CoreV1Api(admin), BatchV1Api(admin)
    found = {
        "job": batch.list_namespaced_job(namespace),
        "pod": core.list_namespaced_pod(namespace),
        "service": core.list_namespaced_service(namespace),
        "secret": core.list_namespaced_secret(namespace),
        "configmap": core.list_namespaced_config_map(namespace),
        "networkpolicy": NetworkingV1Api(admin).list_namespaced_network_policy(namespace),
    }
    names = [f"{kind}/{item.metadata.name}" for kind, page in found.items() for item in page.items]
    return [name for name in names if name not in (f"service/{NAME}", "configmap/kube-root-ca.crt")]


def start_warm(admin: ApiClient, settings: ClusterSettings, template: TrainerTemplate) -> str:
    """Start a service that always runs, as the chart does, in a Deployment; return host:port once it is ready."""
    pod = job(JobRequest(run_id="warm", backend=template.backend, attempt=1), template, settings, None)["spec"][
        "template"
    ]
    name = f"warm-{template.backend}"
    labels = {"app": name}
    body = {
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {**pod["spec"], "restartPolicy": "Always"}},
        },
    }
    apps, core = AppsV1Api(admin), CoreV1Api(admin)
    apps.create_namespaced_deployment(settings.namespace, body)
    until(lambda: apps.read_namespaced_deployment(name, settings.namespace).status.ready_replicas)
    (found,) = core.list_namespaced_pod(settings.namespace, label_selector=f"app={name}").items
    return f"{found.status.pod_ip}:{template.port}"
