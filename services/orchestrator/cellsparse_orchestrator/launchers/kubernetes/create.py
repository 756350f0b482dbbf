"""Makes the objects of an attempt in the cluster; what is there already is taken as it is."""

import logging
import threading
from functools import partial
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from cellsparse_common.errors import FailedPrecondition, Unavailable
from cellsparse_orchestrator.launchers.kubernetes.cluster import call
from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest, OwnerService, job, service
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings, Object

_LOG = logging.getLogger(__name__)
_AT_ONCE = 8
"""Thousands of attempts may begin in the same second; the API server should not see a connection of each."""
_TURN_SECONDS = 10.0
_CONFLICT = 409


class JobCreator:
    """Makes Jobs and Services.

    Args:
        settings: Namespace, images, resources.
        batch: The cluster's Jobs.
        core: The cluster's Services.
    """

    def __init__(self, settings: ClusterSettings, batch: client.BatchV1Api, core: client.CoreV1Api) -> None:
        self._settings = settings
        self._batch = batch
        self._core = core
        self._owner: OwnerService | None = None
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def make(self, place: JobRequest) -> None:
        """Make Job and Service of an attempt.

        Raises:
            Unavailable: The API server does not answer, or too many others are being made.
            ResourceExhausted: A quota of the namespace is used up.
            FailedPrecondition: It refuses.
        """
        if not self._slots.acquire(timeout=_TURN_SECONDS):
            raise Unavailable("Waiting until the Jobs of other runs are made.")
        try:
            self._make(place)
        finally:
            self._slots.release()

    def _make(self, place: JobRequest) -> None:
        trainer = self._settings.trainer(place.backend)
        assert trainer is not None
        namespace = self._settings.namespace
        made = _create(
            partial(self._batch.create_namespaced_job, namespace),
            job(place, trainer, self._settings, self._find_owner()),
            partial(self._batch.read_namespaced_job, place.name, namespace),
        )
        _create(
            partial(self._core.create_namespaced_service, namespace),
            service(place, trainer, self._settings, made.metadata.uid),
            partial(self._core.read_namespaced_service, place.name, namespace),
        )
        _LOG.info("Job %s is made", place.name)

    def _find_owner(self) -> OwnerService | None:
        name = self._settings.owner_service
        if name and self._owner is None:
            found = call(self._core.read_namespaced_service, name, self._settings.namespace)
            if found is None:
                raise FailedPrecondition(f"The Service {name} that Jobs should belong to does not exist.")
            self._owner = OwnerService(name=name, uid=found.metadata.uid)
        return self._owner


def _create(create: "partial[object]", body: Object, read: "partial[object]") -> Any:
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
