"""What a Kubernetes cluster lacks for Cellsparse, in sentences, before anything is installed. It only reads.

Asking (`look`) and judging (`judge`) are apart: the second is a pure function of what the first found.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cellsparse.errors import CellsparseError, FailedPrecondition, InvalidArgument, Unavailable

Level = Literal["ok", "note", "missing"]
CALL_SECONDS = 15.0
OLDEST = (1, 27)
"""The chart's `kubeVersion`."""
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
GPU = "nvidia.com/gpu"
GPU_LABELS = ("nvidia.com/gpu.present", "feature.node.kubernetes.io/pci-10de.present")
"""Labels of nodes that hold an NVIDIA card, whether anything offers it or not."""
TRAINING = {"cpu": 2.0, "memory": 8 * 2**30}
"""What one training process requests by default; a test compares it with the chart."""
INSTALLATION = {"cpu": 3.25, "memory": 9.75 * 2**30}
"""What the services request by default; a test compares it with the chart."""
RIGHTS = {
    "apps": ("deployments", "statefulsets"),
    "batch": ("jobs",),
    "networking.k8s.io": ("networkpolicies",),
    "policy": ("poddisruptionbudgets",),
    "rbac.authorization.k8s.io": ("roles", "rolebindings"),
    "": ("configmaps", "persistentvolumeclaims", "secrets", "serviceaccounts", "services"),
}
"""What whoever installs the chart must be allowed to create, by API group."""
OPTIONAL = {
    "kueue.x-k8s.io": ("Kueue", "trainings wait in the orchestrator's own queue", "kueue.queue"),
    "cert-manager.io": ("cert-manager", "`tls.kind: generated` makes certificates without it", "tls.kind: certManager"),
    "monitoring.coreos.com": ("the Prometheus operator", "metrics can be scraped without it", "metrics.serviceMonitor"),
    "keda.sh": ("KEDA", "the number of warm replicas is fixed without it", "autoscaling.kind"),
    "gateway.networking.k8s.io": ("the Gateway API", "an Ingress does as well", "gateway.route"),
}
"""Extensions by API group: name, what happens without, and the value of the chart that needs it."""
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15} | {
    f"{letter}i": 2.0 ** (10 * power) for power, letter in enumerate("KMGTPE", start=1)
}
_QUANTITY = re.compile(r"([0-9.]+(?:e[0-9]+)?)([a-zA-Z]*)")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that is ready and takes pods."""

    name: str
    allocatable: Mapping[str, float]
    """Amounts by resource: cpu in cores, memory in bytes."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[str] = ()
    """Keys of taints that keep pods away."""


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A LocalQueue of Kueue's."""

    problem: str = ""
    """Why it takes no Jobs; empty: it does."""
    resources: Sequence[str] | None = None
    """What it has quotas for; None: it does not say."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a cluster says of itself. What may not be read is None."""

    version: str
    """Of the API server, such as v1.33.1."""
    namespace: str
    forbidden: Sequence[str] = ()
    """What must not be created in the namespace."""
    nodes: Sequence[Node] | None = None
    classes: Mapping[str, bool] | None = None
    """Storage classes by name, with whether each is the default."""
    groups: Sequence[str] = ()
    """API groups that are served."""
    queues: Mapping[str, Queue] | None = None
    """Kueue's LocalQueues in the namespace, by name."""
    quotas: Mapping[str, Mapping[str, float]] | None = None
    """What the namespace's quotas leave, by quota and resource."""
    runtime_classes: Sequence[str] | None = None
    ingress_classes: Sequence[str] | None = None


@dataclass(frozen=True)
class Finding:
    """One sentence about the cluster."""

    level: Level
    about: str
    sentence: str


def judge(facts: Facts, *, gpu: bool = True, queues: Sequence[str] = ()) -> list[Finding]:
    """Return what is there, what is missing, and what is worth knowing.

    Args:
        facts: From `look`.
        gpu: Whether trainings are to use GPUs.
        queues: Names of LocalQueues that are to admit trainings.
    """
    return [
        _version(facts),
        _rights(facts),
        *_nodes(facts, gpu),
        _storage(facts),
        *_quotas(facts, gpu),
        *_extensions(facts),
        *(_queue(facts, name, gpu) for name in queues),
    ]


def _version(facts: Facts) -> Finding:
    found = re.match(r"v?(\d+)\.(\d+)", facts.version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return Finding("missing", "version", f"Kubernetes is {facts.version}; the chart needs {oldest} or newer.")
    return Finding("ok", "version", f"Kubernetes is {facts.version}.")


def _rights(facts: Facts) -> Finding:
    if facts.forbidden:
        what = ", ".join(facts.forbidden)
        return Finding("missing", "rights", f"You must not create {what} in namespace {facts.namespace}.")
    return Finding("ok", "rights", f"You may create all that the chart makes in namespace {facts.namespace}.")


def _nodes(facts: Facts, gpu: bool) -> list[Finding]:
    if facts.nodes is None:
        return [Finding("note", "nodes", "You must not list nodes, so neither room nor GPUs were looked at.")]
    if not facts.nodes:
        return [Finding("missing", "nodes", "No node is ready.")]
    largest = max(facts.nodes, key=lambda node: node.allocatable.get("memory", 0.0))
    fits = [node for node in facts.nodes if all(node.allocatable.get(what, 0) >= TRAINING[what] for what in TRAINING)]
    need = f"{TRAINING['cpu']:g} cores and {_gib(TRAINING['memory'])}"
    if not fits:
        room = f"{largest.allocatable.get('cpu', 0):g} cores and {_gib(largest.allocatable.get('memory', 0))}"
        sentence = (
            f"No node has room for a training, which requests {need}; the largest, {largest.name}, has {room}. "
            "`trainerDefaults.resources` asks for less."
        )
        found = [Finding("missing", "nodes", sentence)]
    else:
        found = [Finding("ok", "nodes", f"{len(fits)} of {len(facts.nodes)} nodes have {need} for a training.")]
    return [*found, *_gpus(facts, facts.nodes)] if gpu else found


def _gpus(facts: Facts, nodes: Sequence[Node]) -> list[Finding]:
    offered = {
        name: sum(node.allocatable.get(name, 0) for node in nodes)
        for name in sorted({name for node in nodes for name in node.allocatable if name.startswith("nvidia.com/")})
    }
    there = {name: int(count) for name, count in offered.items() if count}
    if not there:
        cards = [node.name for node in nodes if any(node.labels.get(label) == "true" for label in GPU_LABELS)]
        why = (
            f"{', '.join(cards)} has a card that nothing offers: is the GPU operator, or NVIDIA's device plugin, "
            "installed and well?"
            if cards
            else "no node offers one; install NVIDIA's GPU operator, or set `trainerDefaults.gpu.count: 0`."
        )
        return [Finding("missing", "gpu", f"There is no GPU: {why}")]
    listed = ", ".join(f"{count} x {name}" for name, count in there.items())
    found = [Finding("ok", "gpu", f"Nodes offer {listed}; set `orchestrator.slots` to how many trainings may run.")]
    if GPU not in there:
        found.append(
            Finding("note", "gpu", f"All are slices: set `trainerDefaults.gpu.resource` to one of {', '.join(there)}.")
        )
    taints = sorted(
        {taint for node in nodes if any(node.allocatable.get(name) for name in there) for taint in node.taints}
    )
    if taints:
        found.append(
            Finding("note", "gpu", f"GPU nodes have the taints {', '.join(taints)}: set `trainerDefaults.tolerations`.")
        )
    if facts.runtime_classes and "nvidia" in facts.runtime_classes:
        sentence = "There is a RuntimeClass nvidia: set `trainerDefaults.runtimeClass` unless it is the nodes' default."
        found.append(Finding("note", "gpu", sentence))
    return found


def _storage(facts: Facts) -> Finding:
    if facts.classes is None:
        return Finding("note", "storage", "You must not list storage classes, so they were not looked at.")
    default = [name for name, is_default in facts.classes.items() if is_default]
    if default:
        return Finding("ok", "storage", f"Volumes are of the storage class {default[0]} unless values name another.")
    if facts.classes:
        names = ", ".join(sorted(facts.classes))
        return Finding("missing", "storage", f"No storage class is the default: name one of {names} in `storageClass`.")
    sentence = "There is no storage class, so volumes of store and database will wait for ever: install a provisioner."
    return Finding("missing", "storage", sentence)


def _quotas(facts: Facts, gpu: bool) -> list[Finding]:
    if facts.quotas is None:
        return [Finding("note", "quota", "You must not read quotas, so they were not looked at.")]
    need = {f"requests.{name}": INSTALLATION[name] + TRAINING[name] for name in TRAINING}
    need |= {name: need[f"requests.{name}"] for name in TRAINING}
    if gpu:
        need[f"requests.{GPU}"] = 1
    found = []
    for quota, left in sorted(facts.quotas.items()):
        for name in sorted(need.keys() & left.keys()):
            if left[name] < need[name]:
                sentence = (
                    f"The quota {quota} leaves {_amount(name, left[name])} of {name}; the services and one training "
                    f"request {_amount(name, need[name])} by default."
                )
                found.append(Finding("missing", "quota", sentence))
    return found or [
        Finding("ok", "quota", f"The quotas of namespace {facts.namespace} leave room, or there are none.")
    ]


def _extensions(facts: Facts) -> list[Finding]:
    found = []
    for group, (name, without, value) in OPTIONAL.items():
        if group not in facts.groups:
            found.append(Finding("note", name, f"{name[0].upper()}{name[1:]} is not installed; {without} (`{value}`)."))
        elif group == "kueue.x-k8s.io" and facts.queues == {}:
            sentence = f"Kueue is installed, but namespace {facts.namespace} has no LocalQueue: `kueue.clusterQueue`."
            found.append(Finding("note", name, sentence))
        else:
            queues = f" LocalQueues: {', '.join(facts.queues)}." if facts.queues and "kueue" in group else ""
            found.append(Finding("ok", name, f"{name[0].upper()}{name[1:]} is installed (`{value}`).{queues}"))
    if facts.ingress_classes is not None and not facts.ingress_classes:
        found.append(Finding("note", "ingress", "There is no Ingress class: reach the page by `kubectl port-forward`."))
    return found


def _queue(facts: Facts, name: str, gpu: bool) -> Finding:
    about = f"queue {name}"
    if "kueue.x-k8s.io" not in facts.groups:
        return Finding("missing", about, f"The LocalQueue {name} needs Kueue, which is not installed.")
    if facts.queues is None:
        return Finding("note", about, f"You must not list LocalQueues, so {name} was not looked at.")
    queue = facts.queues.get(name)
    if queue is None:
        sentence = f"Namespace {facts.namespace} has no LocalQueue {name}: the chart makes it by `kueue.clusterQueue`."
        return Finding("missing", about, sentence)
    if queue.problem:
        return Finding("missing", about, f"The LocalQueue {name} takes no Jobs: {queue.problem}.")
    given = queue.resources or ()
    lacking = [what for what in TRAINING if what not in given]
    if gpu and not any(what.startswith("nvidia.com/") for what in given):
        lacking.append(GPU)
    if queue.resources is not None and lacking:
        sentence = (
            f"The LocalQueue {name} has no quota for {', '.join(lacking)}, which trainings request: Kueue would never "
            "admit one, unless its configuration leaves them out (`excludeResourcePrefixes`)."
        )
        return Finding("missing", about, sentence)
    return Finding("ok", about, f"The LocalQueue {name} takes Jobs.")


def quantity(text: object) -> float:
    """Return an amount as Kubernetes writes it, such as 250m or 16Gi; 0 for what is none."""
    found = _QUANTITY.fullmatch(str(text))
    return float(found[1]) * _UNITS.get(found[2], 1.0 if not found[2] else 0.0) if found else 0.0


def _gib(amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB"


def _amount(name: str, amount: float) -> str:
    return _gib(amount) if name.endswith("memory") else f"{amount:g}"


def look(namespace: str, *, kubeconfig: str = "", context: str = "") -> Facts:
    """Ask a cluster; changes nothing there.

    Args:
        namespace: Where Cellsparse is to be installed; it need not exist.
        kubeconfig: File; empty: KUBECONFIG, or ~/.kube/config.
        context: Of that file; empty: its current one.

    Raises:
        InvalidArgument: The file or context cannot be used, or the package for it is missing.
        Unavailable: The API server does not answer.
        FailedPrecondition: It does not know us.
    """
    try:
        import yaml  # comes with it
        from kubernetes import client, config
    except ImportError:
        raise InvalidArgument("This needs the Kubernetes client: pip install 'cellsparse[cluster]'.") from None
    if kubeconfig and not _is_file(kubeconfig):  # a pipe would hang
        raise InvalidArgument(f"The kubeconfig cannot be used: {kubeconfig!r} is no file.")
    settings = client.Configuration()
    try:
        config.load_kube_config(config_file=kubeconfig or None, context=context or None, client_configuration=settings)
    except (config.ConfigException, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        # The package checks little of what it reads.
        raise InvalidArgument(f"The kubeconfig cannot be used: {' '.join(str(error).split())}.") from None
    settings.retries = 1
    with client.ApiClient(settings) as api:
        return _Asking(client, api, namespace).facts()


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


class _Asking:
    """The calls. `kubernetes` has no types."""

    def __init__(self, client: Any, api: Any, namespace: str) -> None:
        self._client, self._api, self._namespace = client, api, namespace

    def facts(self) -> Facts:
        client, api = self._client, self._api
        core = client.CoreV1Api(api)
        groups = [group.name for group in self._must(client.ApisApi(api).get_api_versions).groups]
        nodes = self._may(core.list_node)
        classes = self._may(client.StorageV1Api(api).list_storage_class)
        quotas = self._may(core.list_namespaced_resource_quota, self._namespace)
        return Facts(
            version=self._must(client.VersionApi(api).get_code).git_version,
            namespace=self._namespace,
            forbidden=self._forbidden(),
            nodes=None if nodes is None else [_node(each) for each in nodes if _takes_pods(each)],
            classes=None if classes is None else {each.metadata.name: _is_default(each) for each in classes},
            groups=groups,
            queues=self._queues() if "kueue.x-k8s.io" in groups else None,
            quotas=None if quotas is None else {each.metadata.name: _left(each) for each in quotas},
            runtime_classes=self._names(client.NodeV1Api(api).list_runtime_class),
            ingress_classes=self._names(client.NetworkingV1Api(api).list_ingress_class),
        )

    def _must(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return ask(*arguments, _request_timeout=CALL_SECONDS)
        except ApiException as error:
            if error.status in (401, 403):
                raise FailedPrecondition(f"The cluster does not let us in: {error.status} {error.reason}.") from None
            raise Unavailable(f"The Kubernetes API answers {error.status} {error.reason}.") from None
        except (HTTPError, OSError) as error:
            raise Unavailable(f"The Kubernetes API does not answer: {type(error).__name__}.") from None

    def _may(self, ask: Callable[..., Any], *arguments: Any) -> list[Any] | None:
        """Return the items of a list; None if they may not be read, or the cluster has no such kind."""
        try:
            return list(self._must(ask, *arguments).items)
        except FailedPrecondition:
            return None

    def _names(self, ask: Callable[..., Any]) -> list[str] | None:
        found = self._may(ask)
        return None if found is None else [each.metadata.name for each in found]

    def _queues(self) -> dict[str, Queue] | None:
        objects = self._client.CustomObjectsApi(self._api)
        for version in ("v1beta2", "v1beta1"):
            try:
                found = self._must(
                    objects.list_namespaced_custom_object, "kueue.x-k8s.io", version, self._namespace, "localqueues"
                )
            except CellsparseError:
                continue
            return {each["metadata"]["name"]: _local_queue(each) for each in found["items"]}
        return None

    def _forbidden(self) -> list[str]:
        reviews = self._client.AuthorizationV1Api(self._api)
        found = []
        for group, resources in RIGHTS.items():
            for resource in resources:
                what = {"namespace": self._namespace, "verb": "create", "group": group, "resource": resource}
                body = {"spec": {"resourceAttributes": what}}
                if not self._must(reviews.create_self_subject_access_review, body).status.allowed:
                    found.append(resource)
        return found


def _takes_pods(node: Any) -> bool:
    ready = any(one.type == "Ready" and one.status == "True" for one in node.status.conditions or [])
    return ready and not node.spec.unschedulable


def _node(node: Any) -> Node:
    return Node(
        name=node.metadata.name,
        allocatable={name: quantity(amount) for name, amount in (node.status.allocatable or {}).items()},
        labels=node.metadata.labels or {},
        taints=[taint.key for taint in node.spec.taints or [] if taint.effect != "PreferNoSchedule"],
    )


def _local_queue(queue: Any) -> Queue:
    status = queue.get("status", {})
    stopped = [one for one in status.get("conditions", []) if one["type"] == "Active" and one["status"] != "True"]
    given = {each["name"] for flavor in status.get("flavorsReservation", []) for each in flavor.get("resources", [])}
    return Queue(
        problem=str(stopped[0].get("message") or stopped[0]["reason"]).removesuffix(".") if stopped else "",
        resources=sorted(given) or None,
    )


def _is_default(storage: Any) -> bool:
    return (storage.metadata.annotations or {}).get(DEFAULT_CLASS) == "true"


def _left(quota: Any) -> dict[str, float]:
    used = quota.status.used or {}
    return {
        name: quantity(most) - quantity(used.get(name, "0"))
        for name, most in (quota.status.hard or quota.spec.hard or {}).items()
    }


def is_complete(findings: Iterable[Finding]) -> bool:
    """Return whether nothing is missing."""
    return all(finding.level != "missing" for finding in findings)
