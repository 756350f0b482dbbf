"""One Job per attempt; warm services, if there are any, at the addresses that the chart gives."""

import logging
import time
from collections.abc import Callable
from functools import partial

from kubernetes import client

from cellsparse_common.errors import CellsparseError, FailedPrecondition, ResourceExhausted
from cellsparse_orchestrator.launchers.base import ONE, Service, Size
from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.cluster import Forbidden, call
from cellsparse_orchestrator.launchers.kubernetes.create import JobCreator
from cellsparse_orchestrator.launchers.kubernetes.gangs import Gangs
from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest, selector
from cellsparse_orchestrator.launchers.kubernetes.predecessors import Predecessors
from cellsparse_orchestrator.launchers.kubernetes.projections import job_name_of, project_job, project_pod
from cellsparse_orchestrator.launchers.kubernetes.reasons import Verdict, judge
from cellsparse_orchestrator.launchers.kubernetes.removal import Remover
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings
from cellsparse_orchestrator.launchers.kubernetes.warnings import WARNINGS, about, newest, project_event, run_of
from cellsparse_orchestrator.launchers.kubernetes.watch import ResourceWatch
from cellsparse_orchestrator.launchers.static import StaticLauncher
from cellsparse_proto.v1 import common_pb2

_LOG = logging.getLogger(__name__)
_FILL_SECONDS = 1.0
_SYNC_SECONDS = 30.0
_AGAIN_SECONDS = 15.0
"""How often to try again what the cluster will not tell of, such as a quota that has room again."""


class KubernetesLauncher:
    """Makes a Job for every attempt and reads from its pod how it goes.

    Args:
        settings: Namespace, images, resources.
        api: The cluster.
        warm: Sparsifier and trainers that always run, for everything but training.
    """

    stops_trainers = False

    def __init__(self, settings: ClusterSettings, api: client.ApiClient, resident: StaticLauncher) -> None:
        self._settings = settings
        self._resident = resident
        self._jobs_api = client.BatchV1Api(api)
        self._creator = JobCreator(settings, self._jobs_api, client.CoreV1Api(api))
        self._remover = Remover(self._delete)
        self._listeners: dict[str, Callable[[], None]] = {}
        self._stuck_since: dict[str, float] = {}
        self._made: dict[str, float] = {}
        self._half_made: set[str] = set()
        """Jobs whose Service may be missing: the API server refused, or went away, in between."""
        chosen = {"namespace": settings.namespace, "label_selector": selector(settings.instance)}
        self._jobs, self._pods = ObjectCache(job_name_of, self._notify), ObjectCache(job_name_of, self._notify)
        self._predecessors = Predecessors(self._jobs, self._pods, self._remover.remove)
        core = client.CoreV1Api(api)
        self._gangs = Gangs(settings.gang_seconds, self._remover.remove)
        self._events = ObjectCache(about, self._notify)
        warnings = partial(core.list_namespaced_event, settings.namespace, field_selector=WARNINGS)
        self._warnings = ResourceWatch("warnings", warnings, project_event, self._events)
        self._watches = (
            ResourceWatch("jobs", partial(self._jobs_api.list_namespaced_job, **chosen), project_job, self._jobs),
            ResourceWatch("pods", partial(core.list_namespaced_pod, **chosen), project_pod, self._pods),
        )

    def start(self) -> None:
        """Begin to watch (see `Launcher`)."""
        self._resident.start()
        self._remover.start()
        for watch in (*self._watches, self._warnings):
            watch.start()

    def stop(self) -> None:
        """End watching; Jobs go on, and the next orchestrator adopts them (see `Launcher`)."""
        self._remover.stop()
        for watch in (*self._watches, self._warnings):
            watch.stop()
        self._resident.stop()

    def services(self) -> list[Service]:
        """Return the services that always run, and the trainers that run in Jobs only (see `Launcher`)."""
        resident = self._resident.services()
        named = {service.name for service in resident}
        jobs = [trainer.backend for trainer in self._settings.trainers if trainer.backend not in named]
        return [*resident, *(_in_jobs_only(backend) for backend in jobs)]

    def service(self, name: str) -> Service | None:
        """Return a service that always runs, or a trainer that runs in Jobs only (see `Launcher`)."""
        return next((service for service in self.services() if service.name == name), None)

    def ensure(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Return the attempt's own trainer, and see to it that there will be one (see `Launcher`)."""
        return self._place(JobRequest(run_id=run_id, backend=backend, attempt=attempt, size=size), make=True)

    def find(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Return the attempt's own trainer (see `Launcher`)."""
        return self._place(JobRequest(run_id=run_id, backend=backend, attempt=attempt, size=size), make=False)

    def _place(self, place: JobRequest, *, make: bool) -> Service:
        backend = place.backend
        trainer = self._settings.trainer(backend)
        if trainer is None:
            return Service(name=backend, missing=True, message=f"No image of a {backend} trainer is configured.")
        for watch in self._watches:
            if not watch.complete.wait(_FILL_SECONDS):
                return Service(name=backend, waiting=True, message=watch.problem)
        try:
            verdict = self._look(place, make=make)
        except ResourceExhausted as error:
            verdict = Verdict(waiting=True, no_room=True, message=error.message, again_seconds=_AGAIN_SECONDS)
        except Forbidden as error:
            reason = common_pb2.FAILURE_REASON_UNSCHEDULABLE
            verdict = Verdict(stuck=True, reason=reason, message=error.message, again_seconds=_AGAIN_SECONDS)
        except FailedPrecondition as error:
            return Service(name=backend, missing=True, message=error.message)
        except CellsparseError as error:
            return Service(name=backend, waiting=True, message=error.message)
        patience = self._stuck_for(place.name) if verdict.stuck else verdict.again_seconds
        ended = verdict.ended or patience <= 0
        return Service(
            name=backend,
            address=f"{verdict.address}:{trainer.port}" if verdict.address else "",
            hosts=tuple(f"{address}:{trainer.port}" for address in verdict.addresses),
            healthy=bool(verdict.address),
            message=self._complete(verdict),
            missing=ended,
            waiting=verdict.waiting or (verdict.stuck and not ended),
            no_room=verdict.no_room,
            again_seconds=min(patience, verdict.again_seconds),
            reason=verdict.reason if ended else common_pb2.FAILURE_REASON_UNSPECIFIED,
        )

    def release(self, run_id: str, attempt: int) -> None:
        """Delete an attempt's Job, and with it pod and Service (see `Launcher`)."""
        name = JobRequest(run_id=run_id, backend="", attempt=attempt).name
        self._stuck_since.pop(name, None)
        self._made.pop(name, None)
        self._half_made.discard(name)
        self._predecessors.forget(name)
        self._gangs.forget(name)
        self._listeners.pop(run_id, None)
        self._remover.remove(name)

    def subscribe(self, run_id: str, attempt: int, news: Callable[[], None]) -> None:
        """Call `news` after every change of a Job and pod of the run, until `release` (see `Launcher`)."""
        self._listeners[run_id] = news

    def keep_only(self, under_way: Callable[[], set[tuple[str, int]]]) -> bool:
        """Delete the Jobs of all other attempts (see `Launcher`)."""
        if not all(watch.complete.is_set() for watch in self._watches):
            return False
        # In this order: an attempt is written down before its Job is made, so what is new is never taken for old.
        there = {job_name_of(found) for found in self._jobs.all()} - {""}
        wanted = {JobRequest(run_id=run_id, backend="", attempt=attempt).name for run_id, attempt in under_way()}
        for name in there - wanted:
            _LOG.info("Job %s is of no attempt under way and will be deleted", name)
            self._remover.remove(name)
        return True

    def _delete(self, name: str) -> None:
        delete = partial(self._jobs_api.delete_namespaced_job, name, self._settings.namespace)
        call(delete, propagation_policy="Background")

    def _look(self, place: JobRequest, *, make: bool) -> Verdict:
        found = self._jobs.get(place.name)
        pods = self._pods.group(place.name)
        again = self._gangs.waits(place.name, left=found is not None or bool(pods))
        if again is not None:
            self._made.pop(place.name, None)
            return again
        if make and place.name not in self._made and (found is None or place.name in self._half_made):
            trainer = self._settings.trainer(place.backend)
            held_by = self._predecessors.holds(place, trainer.grace_seconds if trainer else 0)
            if held_by:
                message = f"Waiting for the end of attempt {held_by}."
                return Verdict(waiting=True, message=message, again_seconds=_AGAIN_SECONDS)
            self._half_made.add(place.name)
            self._creator.make(place)
            self._half_made.discard(place.name)
            self._made[place.name] = time.monotonic()
            self._stuck_since.pop(place.name, None)
            return Verdict(waiting=True, message="Waiting for its pod.", again_seconds=_AGAIN_SECONDS)
        if found is None and time.monotonic() - self._made.get(place.name, -_SYNC_SECONDS) < _SYNC_SECONDS:
            return Verdict(waiting=True, message="Waiting for its pod.", again_seconds=_AGAIN_SECONDS)
        return self._gangs.look(place.name, judge(found, pods))

    def _stuck_for(self, name: str) -> float:
        """Return how much longer an attempt may be stuck, seconds."""
        since = self._stuck_since.setdefault(name, time.monotonic())
        return since + self._settings.stuck_seconds - time.monotonic()

    def _complete(self, verdict: Verdict) -> str:
        complaint = newest(self._events, verdict.about) if verdict.about else ""
        return f"{verdict.message.removesuffix('.')}: {complaint}" if complaint else verdict.message

    def _notify(self, name: str) -> None:
        news = self._listeners.get(run_of(name))
        if news is not None:
            news()


def _in_jobs_only(backend: str) -> Service:
    return Service(
        name=backend, message=f"{backend} trains in Jobs, but no {backend} trainer runs all the time to answer calls."
    )
