"""Create the objects of an attempt in the cluster; objects that exist already are kept."""

import logging
import threading
from functools import partial
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from cellsparse_common.errors import FailedPrecondition, Unavailable
from cellsparse_orchestrator.launchers.kubernetes.cluster import call
from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest, OwnerService, job, rank_policy, service
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings, Object

_LOG = logging.getLogger(__name__)
_AT_ONCE = 8
"""Most concurrent creations: thousands of attempts may begin in one second, which would overload the API server."""
_SLOT_SECONDS = 10.0
_CONFLICT = 409


class JobCreator:
    """Creates Jobs and what belongs to them.

    Args:
        settings: Namespace, images, resources.
        batch: The API of Jobs.
        core: The API of Services.
        networking: The API of NetworkPolicies.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        batch: client.BatchV1Api,
        core: client.CoreV1Api,
        networking: client.NetworkingV1Api,
    ) -> None:
        self._settings = settings
        self._batch = batch
        self._core = core
        self._networking = networking
        self._owner: OwnerService | None = None
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def create(self, request: JobRequest) -> None:
        """Create the Job and the Service of an attempt, and for several nodes their NetworkPolicy.

        Raises:
            Unavailable: The API server does not answer, or too many other Jobs are being created.
            ResourceExhausted: A quota of the namespace is used up.
            FailedPrecondition: The API server refuses.
        """
        if not self._slots.acquire(timeout=_SLOT_SECONDS):
            raise Unavailable("Waiting until the Jobs of other runs are made.")
        try:
            self._create(request)
        finally:
            self._slots.release()

    def _create(self, request: JobRequest) -> None:
        trainer = self._settings.trainer(request.backend)
        assert trainer is not None
        namespace = self._settings.namespace
        made = _create_or_read(
            partial(self._batch.create_namespaced_job, namespace),
            job(request, trainer, self._settings, self._find_owner()),
            partial(self._batch.read_namespaced_job, request.name, namespace),
        )
        _create_or_read(
            partial(self._core.create_namespaced_service, namespace),
            service(request, trainer, self._settings, made.metadata.uid),
            partial(self._core.read_namespaced_service, request.name, namespace),
        )
        if self._settings.rank_policies and request.size.nodes > 1:
            _create_or_read(
                partial(self._networking.create_namespaced_network_policy, namespace),
                rank_policy(request, self._settings, made.metadata.uid),
                partial(self._networking.read_namespaced_network_policy, request.name, namespace),
            )
        _LOG.info("Job %s is made", request.name)

    def _find_owner(self) -> OwnerService | None:
        name = self._settings.owner_service
        if name and self._owner is None:
            found = call(self._core.read_namespaced_service, name, self._settings.namespace)
            if found is None:
                raise FailedPrecondition(f"The Service {name} that Jobs should belong to does not exist.")
            self._owner = OwnerService(name=name, uid=found.metadata.uid)
        return self._owner


def _create_or_read(create: "partial[object]", body: Object, read: "partial[object]") -> Any:
    try:
        made = call(create, body)
    except FailedPrecondition as error:
        if not isinstance(error.__cause__, ApiException) or error.__cause__.status != _CONFLICT:
            raise
        made = call(read)
        if made is None:
            raise
    if made is None:
        raise FailedPrecondition(f"The namespace {body['metadata']['namespace']} does not exist.")
    return made
