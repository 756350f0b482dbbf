"""What launchers of resident services have in common: services that run whether or not anything trains."""

import threading
from collections.abc import Callable, Iterable

from cellsparse_orchestrator.launchers.base import ONE, Service, Size


class ResidentServices:
    """The part of a `Launcher` that answers questions about resident services.

    Every attempt gets the one trainer of its backend, so nothing is made or removed for an attempt. Subclasses keep the
    services up to date with `_publish`.

    Args:
        services: All services, in the order in which `services` returns them.
        absent: Trainers that lack what they need to be started.
    """

    def __init__(self, services: Iterable[Service], absent: Iterable[Service] = ()) -> None:
        self._lock = threading.Lock()
        self._services = {service.name: service for service in services}
        self._absent = {service.name: service for service in absent}

    def services(self) -> list[Service]:
        """Return all services (see `Launcher`)."""
        with self._lock:
            return list(self._services.values())

    def absent(self) -> list[Service]:
        """Return the trainers that cannot be started (see `Launcher`)."""
        return list(self._absent.values())

    def service(self, name: str) -> Service | None:
        """Return one service (see `Launcher`)."""
        with self._lock:
            return self._services.get(name) or self._absent.get(name)

    def ensure(self, backend: str, run_id: str, attempt: int, size: Size = ONE, project: str = "") -> Service:
        """Return the backend's trainer (see `Launcher`)."""
        return self.service(backend) or Service(
            name=backend, missing=True, message=f"No {backend} trainer is configured."
        )

    def find(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Return the backend's trainer (see `Launcher`)."""
        return self.ensure(backend, run_id, attempt, size)

    def preemption(self, run_id: str, attempt: int) -> str:
        """Return nothing: there are no queues here (see `Launcher`)."""
        return ""

    def release(self, run_id: str, attempt: int) -> None:
        """Do nothing: the trainer stays (see `Launcher`)."""

    def subscribe(self, run_id: str, attempt: int, on_change: Callable[[], None]) -> None:
        """Do nothing: no answer here says `waiting` (see `Launcher`)."""

    def keep_only(self, under_way: Callable[[], set[tuple[str, int]]], unended: Callable[[], set[str]]) -> bool:
        """Do nothing: nothing is made for an attempt (see `Launcher`)."""
        return True

    def _publish(self, service: Service) -> None:
        """Replace a service as a whole, so that readers never see half a change."""
        with self._lock:
            self._services[service.name] = service
