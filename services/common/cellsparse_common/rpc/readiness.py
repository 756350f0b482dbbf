"""Tell by gRPC's health service whether a server's services answer calls, apart from whether the server lives."""

import threading
from collections.abc import Callable, Sequence

from grpc_health.v1 import health, health_pb2

_LOOK_SECONDS = 0.5
_END_SECONDS = 2.0


class Readiness(threading.Thread):
    """Keeps the health of services up to date.

    Args:
        checks: The health service.
        services: Full names of the services.
        refuse: Says why they answer no call now; empty: they do.
    """

    def __init__(self, checks: health.HealthServicer, services: Sequence[str], refuse: Callable[[], str]) -> None:
        super().__init__(name="readiness", daemon=True)
        self._checks = checks
        self._services = services
        self._refuse = refuse
        self._end = threading.Event()
        self._look()

    def run(self) -> None:
        """Look until `stop`."""
        while not self._end.wait(_LOOK_SECONDS):
            self._look()

    def stop(self) -> None:
        """End the thread."""
        self._end.set()
        if self.is_alive():
            self.join(_END_SECONDS)

    def _look(self) -> None:
        kinds = health_pb2.HealthCheckResponse
        status = kinds.NOT_SERVING if self._refuse() else kinds.SERVING
        for service in self._services:
            self._checks.set(service, status)
