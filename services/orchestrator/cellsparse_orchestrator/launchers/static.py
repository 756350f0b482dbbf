"""Services that somebody else runs, at given addresses."""

import threading
from collections.abc import Callable

from cellsparse_orchestrator.launchers.base import ONE, SPARSIFIER, Service, Size
from cellsparse_orchestrator.launchers.probe import probe

_PROBE_SECONDS = 4.0
_BETWEEN_PROBES = 5.0


class StaticLauncher:
    """Knows addresses and asks now and then who answers there.

    Args:
        addresses: host:port by service name.
    """

    stops_trainers = False

    def __init__(self, addresses: dict[str, str]) -> None:
        self._lock = threading.Lock()
        self._services = {
            name: Service(name=name, address=address, message="not asked yet") for name, address in addresses.items()
        }
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(name, address), name=f"probe-{name}", daemon=True)
            for name, address in addresses.items()
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End asking; the services stay."""
        self._end.set()
        for thread in self._threads:
            thread.join(_PROBE_SECONDS + 1)

    def services(self) -> list[Service]:
        """Return all services (see `Launcher`)."""
        with self._lock:
            return list(self._services.values())

    def service(self, name: str) -> Service | None:
        """Return one service (see `Launcher`)."""
        with self._lock:
            return self._services.get(name)

    def ensure(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Return the backend's trainer (see `Launcher`)."""
        return self.service(backend) or Service(
            name=backend, missing=True, message=f"No address of a {backend} trainer is configured."
        )

    def find(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Return the backend's trainer (see `Launcher`)."""
        return self.ensure(backend, run_id, attempt, size)

    def release(self, run_id: str, attempt: int) -> None:
        """Do nothing: the trainer stays (see `Launcher`)."""

    def subscribe(self, run_id: str, attempt: int, news: Callable[[], None]) -> None:
        """Do nothing: no answer here says `waiting` (see `Launcher`)."""

    def keep_only(self, under_way: Callable[[], set[tuple[str, int]]]) -> bool:
        """Do nothing: nothing is made for an attempt (see `Launcher`)."""
        return True

    def _watch(self, name: str, address: str) -> None:
        while True:
            health = probe(name, address, _PROBE_SECONDS)
            found = Service(
                name=name, address=address, healthy=health.healthy, message=health.message, versions=health.versions
            )
            with self._lock:
                self._services[name] = found
            if self._end.wait(_BETWEEN_PROBES if found.healthy else _BETWEEN_PROBES / 5):
                return


def static_launcher(trainers: dict[str, str], sparsifier: str) -> StaticLauncher:
    """Return the launcher for given trainers (host:port by backend) and sparsifier (host:port or empty)."""
    return StaticLauncher({**({SPARSIFIER: sparsifier} if sparsifier else {}), **trainers})
