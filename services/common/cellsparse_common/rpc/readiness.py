"""Tell by gRPC's health service three things apart: whether a server lives, answers calls, and has all that it needs.

The first is the health of the service "", the second that of `ANSWERING`, and the third that of each of its services.
"""

import threading
from collections.abc import Callable, Sequence

from grpc_health.v1 import health, health_pb2

ANSWERING = "answering"
"""Service whose health says whether calls are answered: where a load balancer sends them, and where not."""
_LOOK_SECONDS = 0.5
_END_SECONDS = 2.0


class Readiness(threading.Thread):
    """Keeps the health of services up to date.

    Args:
        checks: The health service.
        services: Full names of the services.
        refuse: Says why they answer no call now; empty: they do.
        missing: Says what they need and is away; empty: nothing.
    """

    def __init__(
        self,
        checks: health.HealthServicer,
        services: Sequence[str],
        refuse: Callable[[], str],
        missing: Callable[[], str] = lambda: "",
    ) -> None:
        super().__init__(name="readiness", daemon=True)
        self._checks = checks
        self._services = services
        self._refuse = refuse
        self._missing = missing
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
        refused = bool(self._refuse())
        self._set(ANSWERING, not refused)
        for service in self._services:
            self._set(service, not (refused or self._missing()))

    def _set(self, service: str, good: bool) -> None:
        kinds = health_pb2.HealthCheckResponse
        self._checks.set(service, kinds.SERVING if good else kinds.NOT_SERVING)
