"""A launcher for services that are started elsewhere and have fixed addresses."""

import threading

from cellsparse_orchestrator.launchers.base import SPARSIFIER, Service
from cellsparse_orchestrator.launchers.probe import probe
from cellsparse_orchestrator.launchers.resident import ResidentServices

_PROBE_SECONDS = 4.0
_BETWEEN_PROBES = 5.0


class StaticLauncher(ResidentServices):
    """Probes fixed addresses at intervals.

    Args:
        addresses: host:port by service name.
    """

    stops_trainers = False

    def __init__(self, addresses: dict[str, str]) -> None:
        super().__init__(
            Service(name=name, address=address, message="not asked yet") for name, address in addresses.items()
        )
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._probe_until_end, args=(name, address), name=f"probe-{name}", daemon=True)
            for name, address in addresses.items()
        ]

    def start(self) -> None:
        """Start to probe (see `Launcher`)."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop probing; the services go on (see `Launcher`)."""
        self._end.set()
        for thread in self._threads:
            thread.join(_PROBE_SECONDS + 1)

    def _probe_until_end(self, name: str, address: str) -> None:
        while True:
            health = probe(name, address, _PROBE_SECONDS)
            self._publish(
                Service(
                    name=name, address=address, healthy=health.healthy, message=health.message, versions=health.versions
                )
            )
            if self._end.wait(_BETWEEN_PROBES if health.healthy else _BETWEEN_PROBES / 5):
                return


def static_launcher(trainers: dict[str, str], sparsifier: str) -> StaticLauncher:
    """Return the launcher for given trainers (host:port by backend) and sparsifier (host:port or empty)."""
    return StaticLauncher({**({SPARSIFIER: sparsifier} if sparsifier else {}), **trainers})
