"""The launcher for a cluster: one Job per attempt, and resident services at the addresses that the chart gives."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from kubernetes import client

from cellsparse_common.errors import CellsparseError, FailedPrecondition, ResourceExhausted
from cellsparse_orchestrator.launchers.base import ONE, Service, Size
from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.cluster import Forbidden, call
from cellsparse_orchestrator.launchers.kubernetes.create import JobCreator
from cellsparse_orchestrator.launchers.kubernetes.fewer_nodes import FewerNodes
from cellsparse_orchestrator.launchers.kubernetes.gangs import Gangs
from cellsparse_orchestrator.launchers.kubernetes.kueue import job_of
from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest, job_name, selector
from cellsparse_orchestrator.launchers.kubernetes.predecessors import Predecessors
from cellsparse_orchestrator.launchers.kubernetes.projections import job_name_of, project_job, project_pod, queue_of
from cellsparse_orchestrator.launchers.kubernetes.reasons import Verdict, judge
from cellsparse_orchestrator.launchers.kubernetes.removal import Remover
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings
from cellsparse_orchestrator.launchers.kubernetes.warm import WarmTrainers
from cellsparse_orchestrator.launchers.kubernetes.warnings import WARNINGS, about, newest, project_event, run_of
from cellsparse_orchestrator.launchers.kubernetes.watch import ResourceWatch
from cellsparse_orchestrator.launchers.kubernetes.workloads import Workloads
from cellsparse_orchestrator.launchers.static import StaticLauncher
from cellsparse_proto.v1 import common_pb2

_LOG = logging.getLogger(__name__)
_FILL_SECONDS = 1.0
_SYNC_SECONDS = 30.0
_AGAIN_SECONDS = 15.0
"""How often to try again when no watch reports the change, such as a quota that has room again."""
_WAITING_FOR_POD = Verdict(waiting=True, message="Waiting for its pod.", again_seconds=_AGAIN_SECONDS)


class KubernetesLauncher:
    """Creates a Job for every attempt and reads the attempt's state from Job and pods.

    Args:
        settings: Namespace, images, resources.
        api: The client of the cluster.
        resident: The sparsifier and trainers that always run, for everything but training.
    """

    stops_trainers = False

    def __init__(self, settings: ClusterSettings, api: client.ApiClient, resident: StaticLauncher) -> None:
        self._settings = settings
        self._resident = resident
        resident.explain = WarmTrainers(settings, api).problem
        self._jobs_api = client.BatchV1Api(api)
        self._creator = JobCreator(settings, self._jobs_api, client.CoreV1Api(api), client.NetworkingV1Api(api))
        self._remover = Remover(self._delete)
        self._listeners: dict[str, Callable[[], None]] = {}
        self._stuck_since: dict[str, float] = {}
        self._created: dict[str, float] = {}
        self._incomplete: set[str] = set()
        """Jobs whose Service or NetworkPolicy may be missing, because the API server refused it or went away."""
        chosen = {"namespace": settings.namespace, "label_selector": selector(settings.instance)}
        self._jobs, self._pods = ObjectCache(job_name_of, self._notify), ObjectCache(job_name_of, self._notify)
        self._predecessors = Predecessors(self._jobs, self._pods, self._remover.remove)
        core = client.CoreV1Api(api)
        self._gangs = Gangs(settings.gang_seconds, self._remove_for_another)
        self._fewer = FewerNodes(settings.fewer_nodes_seconds)
        self._events = ObjectCache(about, self._notify)
        warnings = partial(core.list_namespaced_event, settings.namespace, field_selector=WARNINGS)
        self._warnings = ResourceWatch("warnings", warnings, project_event, self._events)
        self._workloads = None
        if settings.has_queues:
            self._workloads = Workloads(settings.namespace, api, ObjectCache(job_of, self._notify))
        self._watches = (
            ResourceWatch("jobs", partial(self._jobs_api.list_namespaced_job, **chosen), project_job, self._jobs),
            ResourceWatch("pods", partial(core.list_namespaced_pod, **chosen), project_pod, self._pods),
        )

    def start(self) -> None:
        """Start to watch the cluster (see `Launcher`)."""
        self._resident.start()
        self._remover.start()
        for watch in self._all_watches():
            watch.start()

    def stop(self) -> None:
        """Stop watching; Jobs go on, and the next orchestrator adopts them (see `Launcher`)."""
        self._remover.stop()
        for watch in self._all_watches():
            watch.stop()
        self._resident.stop()

    def _all_watches(self) -> list[ResourceWatch]:
        return [*self._watches, self._warnings, *([self._workloads.watch] if self._workloads else [])]

    def services(self) -> list[Service]:
        """Return the resident services, and the trainers that run only in Jobs (see `Launcher`)."""
        resident = self._resident.services()
        named = {service.name for service in resident}
        jobs = [trainer.backend for trainer in self._settings.trainers if trainer.backend not in named]
        return [*resident, *(_in_jobs_only(backend) for backend in jobs)]

    def absent(self) -> list[Service]:
        """Return nothing: every trainer has an image of its own (see `Launcher`)."""
        return []

    def service(self, name: str) -> Service | None:
        """Return a resident service, or a trainer that runs only in Jobs (see `Launcher`)."""
        return next((service for service in self.services() if service.name == name), None)

    def ensure(self, backend: str, run_id: str, attempt: int, size: Size = ONE, project: str = "") -> Service:
        """Get or create the attempt's own trainer (see `Launcher`)."""
        trainer = self._settings.trainer(backend)
        queue = self._settings.queue(trainer, project) if trainer is not None else ""
        request = JobRequest(run_id=run_id, backend=backend, attempt=attempt, size=size, queue=queue)
        found = self._trainer(request, create=True)
        if found.address and self._workloads is not None:
            self._workloads.accepted(request.name)
        return found

    def find(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Get the attempt's own trainer (see `Launcher`)."""
        return self._trainer(JobRequest(run_id=run_id, backend=backend, attempt=attempt, size=size), create=False)

    def _trainer(self, request: JobRequest, *, create: bool) -> Service:
        """Return the attempt's trainer as a service; with `create`, create a missing Job."""
        backend = request.backend
        trainer = self._settings.trainer(backend)
        if trainer is None:
            return Service(name=backend, missing=True, message=f"No image of a {backend} trainer is configured.")
        for watch in self._watches:
            if not watch.complete.wait(_FILL_SECONDS):
                return Service(name=backend, waiting=True, message=watch.problem)
        try:
            verdict = self._judge(request, create=create)
        except ResourceExhausted as error:
            verdict = Verdict(waiting=True, no_room=True, message=error.message, again_seconds=_AGAIN_SECONDS)
        except Forbidden as error:
            reason = common_pb2.FAILURE_REASON_UNSCHEDULABLE
            verdict = Verdict(stuck=True, reason=reason, message=error.message, again_seconds=_AGAIN_SECONDS)
        except FailedPrecondition as error:
            return Service(name=backend, missing=True, message=error.message)
        except CellsparseError as error:
            return Service(name=backend, waiting=True, message=error.message)
        seconds_left = self._stuck_for(request.name) if verdict.stuck else verdict.again_seconds
        ended = verdict.ended or seconds_left <= 0
        return Service(
            name=backend,
            address=f"{verdict.address}:{trainer.port}" if verdict.address else "",
            hosts=tuple(f"{address}:{trainer.port}" for address in verdict.addresses),
            healthy=bool(verdict.address),
            message=self._complete(verdict),
            missing=ended,
            waiting=verdict.waiting or (verdict.stuck and not ended),
            no_room=verdict.no_room,
            no_quota=verdict.no_quota,
            fewer=verdict.fewer,
            again_seconds=min(seconds_left, verdict.again_seconds),
            reason=verdict.reason if ended else common_pb2.FAILURE_REASON_UNSPECIFIED,
        )

    def preemption(self, run_id: str, attempt: int) -> str:
        """Return why Kueue took an attempt's place back (see `Launcher`)."""
        return self._workloads.preemption(job_name(run_id, attempt)) if self._workloads is not None else ""

    def release(self, run_id: str, attempt: int) -> None:
        """Delete an attempt's Job, and with it pods and Service (see `Launcher`)."""
        name = job_name(run_id, attempt)
        self._stuck_since.pop(name, None)
        self._created.pop(name, None)
        self._incomplete.discard(name)
        self._predecessors.forget(name)
        self._gangs.forget(name)
        self._fewer.forget(name)
        self._listeners.pop(run_id, None)
        for earlier in range(1, attempt):  # one that an administrator held back
            if self._jobs.get(job_name(run_id, earlier)) is not None:
                self._remover.remove(job_name(run_id, earlier))
        if self._workloads is None or not self._workloads.forget(name):
            self._remover.remove(name)

    def subscribe(self, run_id: str, attempt: int, on_change: Callable[[], None]) -> None:
        """Call `on_change` after every change of the run's Jobs and pods, until `release` (see `Launcher`)."""
        self._listeners[run_id] = on_change

    def keep_only(self, under_way: Callable[[], set[tuple[str, int]]], unended: Callable[[], set[str]]) -> bool:
        """Delete the Jobs of all other attempts, but those that an administrator holds back (see `Launcher`)."""
        if not all(watch.complete.is_set() for watch in self._watches):
            return False
        # Read the Jobs first: an attempt is recorded before its Job is created, so a new Job never looks left over.
        existing = {job_name_of(found) for found in self._jobs.all()} - {""}
        wanted = {job_name(run_id, attempt) for run_id, attempt in under_way()}
        for name in existing - wanted - self._held(existing - wanted, unended):
            _LOG.info("Job %s is of no attempt under way and will be deleted", name)
            self._remover.remove(name)
        return True

    def _held(self, names: set[str], unended: Callable[[], set[str]]) -> set[str]:
        """Return which Jobs' Workloads an administrator has deactivated, of runs that are to go on."""
        workloads = self._workloads
        if workloads is None or not names:
            return set()
        workloads.watch.complete.wait(_FILL_SECONDS)  # for nothing where we may not read Workloads
        held = {name for name in names if workloads.hold(name, "")}
        runs = unended() if held else set()
        return {name for name in held if run_of(name) in runs}

    def _remove_for_another(self, name: str) -> None:
        """Delete a Job that is made anew, however soon it is gone and whenever anybody looks again."""
        self._created.pop(name, None)
        self._remover.remove(name)

    def _delete(self, name: str) -> None:
        delete = partial(self._jobs_api.delete_namespaced_job, name, self._settings.namespace)
        call(delete, propagation_policy="Background")

    def _judge(self, request: JobRequest, *, create: bool) -> Verdict:
        """Return the verdict on an attempt's pods; with `create`, create a missing Job."""
        name = request.name
        found = self._jobs.get(name)
        pods = self._pods.group(name)
        released = self._gangs.waits(name, left=found is not None or bool(pods))
        if released is not None:
            return released
        if create and found is not None and found["spec"].get("completions", 1) != request.size.nodes:
            self._gangs.give_back(name)
            message = f"Waiting until its place for {found['spec'].get('completions', 1)} pods is given back."
            return Verdict(waiting=True, no_room=True, message=message, again_seconds=_FILL_SECONDS)
        if create and name not in self._created and (found is None or name in self._incomplete):
            return self._create(request)
        if found is None and time.monotonic() - self._created.get(name, -_SYNC_SECONDS) < _SYNC_SECONDS:
            return _WAITING_FOR_POD
        workload = self._workloads.of_job(name) if self._workloads is not None else None
        verdict = judge(found, pods, workload, begun=not create)
        if create:
            verdict = self._fewer.look(name, request.size, verdict)
            if verdict.fewer:
                return verdict
        if queue_of(found):
            # Kueue admits all pods or none, and full nodes concern its queue alone: nothing is to be released here.
            return replace(verdict, no_room=False, no_quota=verdict.no_quota or verdict.no_room)
        return self._gangs.look(name, verdict)

    def _hold(self, request: JobRequest) -> str:
        """Return why an administrator holds the run back, where an earlier attempt waits to be active again; or ""."""
        if self._workloads is None or request.attempt == 1:
            return ""
        self._workloads.watch.complete.wait(_FILL_SECONDS)
        earlier = [job_name(request.run_id, attempt) for attempt in range(1, request.attempt)]
        return next(filter(None, (self._workloads.hold(name, request.queue) for name in earlier)), "")

    def _create(self, request: JobRequest) -> Verdict:
        hold = self._hold(request)
        if hold:
            return Verdict(waiting=True, message=hold, again_seconds=_AGAIN_SECONDS)
        trainer = self._settings.trainer(request.backend)
        blocking = self._predecessors.blocking(request, trainer.grace_seconds if trainer else 0)
        if blocking:
            message = f"Waiting for the end of attempt {blocking}."
            return Verdict(waiting=True, message=message, again_seconds=_AGAIN_SECONDS)
        self._incomplete.add(request.name)
        self._creator.create(request)
        self._incomplete.discard(request.name)
        self._created[request.name] = time.monotonic()
        self._stuck_since.pop(request.name, None)
        return _WAITING_FOR_POD

    def _stuck_for(self, name: str) -> float:
        """Return how much longer an attempt may be stuck, seconds."""
        since = self._stuck_since.setdefault(name, time.monotonic())
        return since + self._settings.stuck_seconds - time.monotonic()

    def _complete(self, verdict: Verdict) -> str:
        warning = newest(self._events, verdict.about) if verdict.about else ""
        return f"{verdict.message.removesuffix('.')}: {warning}" if warning else verdict.message

    def _notify(self, name: str) -> None:
        on_change = self._listeners.get(run_of(name))
        if on_change is not None:
            on_change()


def _in_jobs_only(backend: str) -> Service:
    return Service(
        name=backend, message=f"{backend} trains in Jobs, but no {backend} trainer runs all the time to answer calls."
    )
