"""Build the Kubernetes objects that run an attempt: pure functions, so that tests compare whole objects."""

import re
from dataclasses import dataclass
from decimal import Decimal

from cellsparse_common.rpc.metrics import HEALTH_PATH
from cellsparse_orchestrator.launchers.base import ONE, Size
from cellsparse_orchestrator.launchers.kubernetes.kueue import QUEUE_LABEL
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings, Object, TrainerTemplate

MANAGER = "cellsparse-orchestrator"
CREDENTIALS = "/run/cellsparse/credentials"
CA_FOLDER = "/run/cellsparse/ca"
TLS_FOLDER = "/run/cellsparse/tls"
_PROBE_SECONDS = 5
"""Longest wait for an answer to a probe. The default of Kubernetes, 1 s, is too short on a busy node."""
SCRATCH = "/tmp"  # noqa: S108 - in a container with its own volume
_USER = 10001
_QUANTITY = re.compile(r"([0-9]*\.?[0-9]+)(.*)")
_LOST_NODE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def job_name(run_id: str, attempt: int) -> str:
    """Return the name of an attempt's Job: the same for the same attempt, so that nothing is made twice."""
    return f"{run_id}-a{attempt}"


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """An attempt for which a Job is needed."""

    run_id: str
    backend: str
    attempt: int
    """From 1."""
    size: Size = ONE
    """Each node is a pod, and each process of a pod has its own GPUs."""
    queue: str = ""
    """Kueue LocalQueue that admits it; empty without Kueue."""

    @property
    def name(self) -> str:
        """Name of the Job and its Service."""
        return job_name(self.run_id, self.attempt)


@dataclass(frozen=True, kw_only=True)
class OwnerService:
    """The Service that owns all Jobs, so that its deletion removes them."""

    name: str
    uid: str


def selector(instance: str) -> str:
    """Return the label selector of all objects that an installation makes."""
    return f"app.kubernetes.io/managed-by={MANAGER},app.kubernetes.io/instance={instance}"


def labels(request: JobRequest, cluster: ClusterSettings) -> dict[str, str]:
    """Return the labels of an attempt's objects."""
    return {
        "app.kubernetes.io/name": f"trainer-{request.backend}",
        "app.kubernetes.io/component": "trainer",
        "app.kubernetes.io/part-of": "cellsparse",
        "app.kubernetes.io/instance": cluster.instance,
        "app.kubernetes.io/managed-by": MANAGER,
        "cellsparse.dev/run": request.run_id,
        "cellsparse.dev/attempt": str(request.attempt),
    }


def job(request: JobRequest, trainer: TrainerTemplate, cluster: ClusterSettings, owner: OwnerService | None) -> Object:
    """Return the Job of an attempt: one pod per node, without retries.

    The orchestrator retries instead, because it knows which failures another attempt may overcome.
    """
    kueue = {QUEUE_LABEL: request.queue} if request.queue else {}
    metadata: Object = {
        "name": request.name,
        "namespace": cluster.namespace,
        "labels": {**labels(request, cluster), **kueue},
    }
    if owner is not None:
        metadata["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Service", "name": owner.name, "uid": owner.uid, "controller": False}
        ]
    spec: Object = {
        "completionMode": "Indexed",
        "completions": request.size.nodes,
        "parallelism": request.size.nodes,
        "backoffLimit": 0,
        "activeDeadlineSeconds": trainer.deadline_seconds,
        "ttlSecondsAfterFinished": trainer.ttl_seconds,
        "template": {
            "metadata": {
                "labels": {**trainer.labels, **labels(request, cluster)},
                "annotations": dict(trainer.annotations),
            },
            "spec": _pod(request, trainer, cluster),
        },
    }
    if request.queue:
        spec["suspend"] = True  # Kueue starts it
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def service(request: JobRequest, trainer: TrainerTemplate, cluster: ClusterSettings, job_uid: str) -> Object:
    """Return the headless Service that gives an attempt's pods stable names; it is deleted with the Job."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _belonging_to_job(request, cluster, job_uid),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": request.name},
            "ports": [
                {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
                for name, port in _ports(trainer, cluster).items()
            ],
        },
    }


def rank_policy(request: JobRequest, cluster: ClusterSettings, job_uid: str) -> Object:
    """Return the NetworkPolicy by which the pods of an attempt, and no others, reach each other's unprivileged ports.

    Frameworks open ports as they need them, and ask nobody who connects. It is deleted with the Job.
    """
    pods: Object = {"podSelector": {"matchLabels": labels(request, cluster)}}
    ports = [{"port": 1024, "endPort": 65535, "protocol": "TCP"}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _belonging_to_job(request, cluster, job_uid),
        "spec": {
            **pods,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": ports, "from": [pods]}],
            "egress": [{"ports": ports, "to": [pods]}],
        },
    }


def _belonging_to_job(request: JobRequest, cluster: ClusterSettings, job_uid: str) -> Object:
    return {
        "name": request.name,
        "namespace": cluster.namespace,
        "labels": labels(request, cluster),
        "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": request.name, "uid": job_uid, "controller": False}
        ],
    }


def _pod(request: JobRequest, trainer: TrainerTemplate, cluster: ClusterSettings) -> Object:
    pod: Object = {
        "restartPolicy": "Never",
        "subdomain": request.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": trainer.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            **({} if cluster.assigned_users else {"runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(request, trainer, cluster)],
        "volumes": _volumes(request, trainer, cluster),
    }
    given: Object = {
        "serviceAccountName": cluster.service_account,
        "nodeSelector": trainer.node_selector,
        "tolerations": _tolerations(trainer),
        "affinity": trainer.affinity,
        "runtimeClassName": trainer.runtime_class,
        "priorityClassName": trainer.priority_class,
        "imagePullSecrets": [{"name": name} for name in trainer.image_pull_secrets],
    }
    return {**pod, **{key: value for key, value in given.items() if value}}


def _tolerations(trainer: TrainerTemplate) -> list[Object]:
    """Return the template's tolerations, and those for a lost node with the configured time limit."""
    named = {toleration.get("key") for toleration in trainer.tolerations}
    lost = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": trainer.node_lost_seconds}
    given = [dict(toleration) for toleration in trainer.tolerations]
    return given + [{"key": key, **lost} for key in _LOST_NODE if key not in named]


def _container(request: JobRequest, trainer: TrainerTemplate, cluster: ClusterSettings) -> Object:
    limits, requests = (
        {name: times(quantity, request.size.processes) for name, quantity in trainer.resources.get(part, {}).items()}
        for part in ("limits", "requests")
    )
    if trainer.gpu.count:
        limits[trainer.gpu.resource] = str(trainer.gpu.count * request.size.processes)
    own = {"PORT": str(trainer.port), "EXIT_UNUSED_SECONDS": str(trainer.unused_seconds)}
    if cluster.tls_callers:
        own |= {"TLS_CLIENT_CA": f"{TLS_FOLDER}/ca.crt", "TLS_CALLERS": ",".join(cluster.tls_callers)}
    else:  # who reaches the pod is for the cluster's network policies to say
        own["INSECURE"] = "1"
    variables = {
        **cluster.environment,
        **trainer.environment,
        **{f"CELLSPARSE_{name}": value for name, value in own.items()},
    }
    if cluster.credentials_secret:
        variables["CELLSPARSE_SECRETS_DIR"] = CREDENTIALS
    if cluster.ca_secret:
        variables["CELLSPARSE_S3_CA_BUNDLE"] = f"{CA_FOLDER}/ca.crt"
    if cluster.tls_secret:
        variables["CELLSPARSE_TLS_CERT"] = f"{TLS_FOLDER}/tls.crt"
        variables["CELLSPARSE_TLS_KEY"] = f"{TLS_FOLDER}/tls.key"
    if cluster.metrics_port:
        variables["CELLSPARSE_METRICS_PORT"] = str(cluster.metrics_port)
    probe = _probe(trainer, cluster)
    container: Object = {
        "name": "trainer",
        "image": trainer.image,
        "imagePullPolicy": trainer.image_pull_policy,
        "env": [
            # The pod's own address instead of all addresses, so that nothing else on the node is exposed by accident.
            {"name": "CELLSPARSE_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *({"name": name, "value": value} for name, value in sorted(variables.items())),
        ],
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _ports(trainer, cluster).items()
        ],
        "startupProbe": {**probe, "periodSeconds": 1, "timeoutSeconds": _PROBE_SECONDS, "failureThreshold": 120},
        "readinessProbe": {**probe, "periodSeconds": 5, "timeoutSeconds": _PROBE_SECONDS},
        "resources": {key: value for key, value in (("limits", limits), ("requests", requests)) if value},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(cluster),
    }
    if trainer.command:
        container["command"] = list(trainer.command)
    return container


def times(quantity: str | float, count: int) -> str | float:
    """Multiply a Kubernetes quantity ("500m", "8Gi", 2) by a whole number, in its own unit.

    Each of several processes needs what one needs, because it has its own copy of model, images and framework.
    """
    found = _QUANTITY.fullmatch(str(quantity))
    if count == 1 or found is None:  # the API server reports what is wrong with a quantity
        return quantity
    return f"{Decimal(found[1]) * count}{found[2]}"


def _probe(trainer: TrainerTemplate, cluster: ClusterSettings) -> Object:
    """Return the kubelet's health probe; its gRPC probe does not support TLS, but metrics are served without TLS."""
    if not cluster.tls_secret:
        return {"grpc": {"port": trainer.port}}
    if cluster.metrics_port:
        return {"httpGet": {"path": HEALTH_PATH, "port": "metrics"}}
    return {"tcpSocket": {"port": "grpc"}}


def _ports(trainer: TrainerTemplate, cluster: ClusterSettings) -> dict[str, int]:
    return {"grpc": trainer.port, **({"metrics": cluster.metrics_port} if cluster.metrics_port else {})}


def _mounts(cluster: ClusterSettings) -> list[Object]:
    mounts: list[Object] = [
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod's own
    ]
    secrets = {
        "credentials": (cluster.credentials_secret, CREDENTIALS),
        "ca": (cluster.ca_secret, CA_FOLDER),
        "tls": (cluster.tls_secret, TLS_FOLDER),
    }
    given = [(name, path) for name, (secret, path) in secrets.items() if secret]
    return mounts + [{"name": name, "mountPath": path, "readOnly": True} for name, path in given]


def _volumes(request: JobRequest, trainer: TrainerTemplate, cluster: ClusterSettings) -> list[Object]:
    shared = times(trainer.shared_memory, request.size.processes)
    volumes: list[Object] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": trainer.scratch}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": shared}},
    ]
    if cluster.credentials_secret:
        items = [{"key": key, "path": path} for key, path in sorted(cluster.credentials_keys.items())]
        source = {"secret": {"name": cluster.credentials_secret, "items": items}}
        volumes.append({"name": "credentials", "projected": {"defaultMode": 0o440, "sources": [source]}})
    if cluster.ca_secret:
        secret = {"secretName": cluster.ca_secret, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
        volumes.append({"name": "ca", "secret": secret})
    if cluster.tls_secret:
        names = ("tls.crt", "tls.key", *(("ca.crt",) if cluster.tls_callers else ()))
        files = [{"key": name, "path": name} for name in names]
        volumes.append(
            {"name": "tls", "secret": {"secretName": cluster.tls_secret, "defaultMode": 0o440, "items": files}}
        )
    return volumes
