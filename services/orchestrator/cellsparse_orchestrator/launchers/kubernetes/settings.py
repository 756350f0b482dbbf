"""Settings of the Kubernetes launcher: the file that the chart writes from its values."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellsparse_common.errors import InvalidArgument

Object = dict[str, Any]
"""A Kubernetes API object, or a part of one, as JSON."""

_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Gpu(_Strict):
    """The accelerator of one training process."""

    resource: str = "nvidia.com/gpu"
    """The extended resource's name; a MIG slice has its own, such as nvidia.com/mig-1g.10gb."""
    count: int = Field(default=1, ge=0, le=64)
    """How many per process; 0 to train on the CPU."""


class TrainerTemplate(_Strict):
    """The pod template of one backend."""

    backend: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    """The name of the backend's field in TrainingSettings."""
    image: str = Field(min_length=1)
    """Image with tag or digest."""
    image_pull_policy: str = Field(default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$")
    """When the kubelet pulls the image."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets with registry credentials."""
    command: tuple[str, ...] = ()
    """Replacement for the image's entry point; empty to keep it."""
    port: int = Field(ge=1, le=65535)
    """TCP port that the trainer listens on."""
    resources: Object = Field(default_factory=dict)
    """Requests and limits of one training process, without the GPU; multiplied for a pod with several processes."""
    gpu: Gpu = Gpu()
    """The GPU."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that the node must have."""
    tolerations: tuple[Object, ...] = ()
    """Taints that the pods tolerate."""
    affinity: Object = Field(default_factory=dict)
    """Affinity of the pods."""
    runtime_class: str = ""
    """RuntimeClass, such as nvidia; empty for the cluster's default."""
    priority_class: str = ""
    """PriorityClass; empty for the cluster's default."""
    queue: str = ""
    """Kueue LocalQueue that admits the Jobs of projects without one of their own; empty without Kueue."""
    shared_memory: str = Field(default="1Gi", pattern=r"^[0-9]+(Mi|Gi|Ti)$")
    """Size of /dev/shm for one training process; multiplied for a pod with several processes."""
    scratch: str = Field(default="20Gi", pattern=r"^[0-9]+(Mi|Gi|Ti)$")
    """Largest size of the folder for unfinished checkpoints."""
    deadline_seconds: int = Field(default=7 * 24 * 3600, ge=1)
    """Longest time of an attempt, including the wait for a node, seconds."""
    ttl_seconds: int = Field(default=600, ge=0)
    """How long an ended Job is kept if nothing deletes it, seconds."""
    grace_seconds: int = Field(default=60, ge=1)
    """How long a terminating pod may take to write a checkpoint, seconds."""
    unused_seconds: int = Field(default=600, ge=1, le=604_800)
    """How long an idle trainer waits for a call before it ends and releases its node, seconds. Without this limit, it
    would hold its node when its orchestrator is gone."""
    warm_deployment: str = ""
    """Deployment of its warm trainers, if an autoscaler stops them while nobody needs them; empty: none does."""
    node_lost_seconds: int = Field(default=30, ge=0)
    """How long a node may be away before its pod is given up, seconds."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Additional labels of the pods."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Additional annotations of the pods."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Additional environment variables of the container."""


class ClusterSettings(_Strict):
    """Where Jobs are created, and what all of them share."""

    namespace: str = Field(pattern=_NAME)
    """Namespace of Jobs, pods and Services."""
    instance: str = Field(pattern=_NAME)
    """Name of this installation. Its objects carry the name as a label; other objects are ignored."""
    owner_service: str = ""
    """Service whose deletion removes all Jobs, which is the orchestrator's own; empty for none."""
    service_account: str = ""
    """ServiceAccount of the trainers' pods; its token is never mounted."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of all trainers: object store, limits, log level."""
    credentials_secret: str = ""
    """Secret with the object store's keys; empty for anonymous access or keys from another source."""
    credentials_keys: dict[str, str] = Field(
        default={"accessKey": "cellsparse_s3_access_key", "secretKey": "cellsparse_s3_secret_key"}
    )
    """File name by key of the Secret."""
    ca_secret: str = ""
    """Secret whose `ca.crt` signs the object store's certificate; empty for the system's authorities."""
    tls_secret: str = ""
    """Secret with the trainers' certificate `tls.crt` and key `tls.key`; empty for trainers without TLS."""
    tls_callers: tuple[str, ...] = ()
    """Names of which a caller's certificate must hold one, DNS names or URIs; the Secret then holds `ca.crt` besides,
    the callers' authorities. Empty: the pods ask callers for no certificate, so that only network policies keep others
    out."""
    rank_policies: bool = False
    """Whether each attempt on several nodes gets a NetworkPolicy that lets its own pods speak to each other. For a
    namespace in which other policies keep pods apart."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """TCP port for Prometheus metrics; 0 for none."""
    assigned_users: bool = False
    """Whether the cluster gives pods their user ids, as OpenShift does; else it is 10001."""
    stuck_seconds: float = Field(default=120.0, ge=0.0)
    """How long an attempt may be blocked by a problem that only a person can solve, seconds: an image that cannot be
    pulled, or a permission that the orchestrator lacks."""
    gang_seconds: float = Field(default=60.0, ge=0.0)
    """How long a training may hold only a part of its nodes, seconds. Then it releases them and tries again a little
    later. Otherwise two trainings that each hold a part of what both need would wait for ever."""
    fewer_nodes_seconds: float = Field(default=300.0, ge=0.0)
    """How long a later attempt of a training that says `min_nodes` waits for all of its nodes, seconds. Then it goes on
    with fewer as soon as there are enough."""
    project_queues: dict[str, str] = Field(default_factory=dict)
    """Kueue LocalQueue by the id of the project whose Jobs it admits; other projects have the trainer's `queue`."""
    trainers: tuple[TrainerTemplate, ...]
    """The pod templates of all backends."""

    @property
    def has_queues(self) -> bool:
        """Whether Kueue admits any Jobs."""
        return bool(self.project_queues) or any(trainer.queue for trainer in self.trainers)

    def queue(self, trainer: TrainerTemplate, project: str) -> str:
        """Return the LocalQueue that admits a project's Jobs; empty: Kueue has nothing to do with them."""
        return self.project_queues.get(project, trainer.queue)

    def trainer(self, backend: str) -> TrainerTemplate | None:
        """Return the template of a backend; None if it is not configured."""
        return next((trainer for trainer in self.trainers if trainer.backend == backend), None)


def read_settings(path: Path) -> ClusterSettings:
    """Read the file that the chart writes.

    Raises:
        InvalidArgument: It cannot be read, or a value is missing, unknown or not allowed.
    """
    try:
        return ClusterSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidArgument(f"The cluster settings {path} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument(f"The cluster settings {path} are wrong at {where}: {first['msg']}.") from error
