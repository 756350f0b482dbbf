"""A launcher for services that are started elsewhere and have fixed addresses."""

import threading
from collections.abc import Callable, Collection

from cellsparse_orchestrator.launchers.base import SPARSIFIER, Service
from cellsparse_orchestrator.launchers.probe import Health, probe
from cellsparse_orchestrator.launchers.resident import ResidentServices
from cellsparse_orchestrator.launchers.wake_queue import WakeQueue

_PROBE_SECONDS = 4.0
_BETWEEN_PROBES = 5.0


class StaticLauncher(ResidentServices):
    """Probes fixed addresses at intervals.

    Args:
        addresses: host:port by service name.
        wake_queues: Queues of the trainers that an autoscaler stops while nobody needs them.

    Attributes:
        explain: Says what keeps a sleeper, given its name, from starting; "" while nothing does.
    """

    stops_trainers = False

    def __init__(self, addresses: dict[str, str], wake_queues: Collection[tuple[str, WakeQueue]] = ()) -> None:
        self._wake_queues = dict(wake_queues)
        super().__init__(
            Service(
                name=name,
                address=address,
                healthy=name in self._wake_queues,
                asleep=name in self._wake_queues,
                message="not asked yet",
                wake_queue=self._wake_queues.get(name),
            )
            for name, address in addresses.items()
        )
        self.explain: Callable[[str], str] = lambda _: ""
        self._ended = False
        self._look = {name: threading.Event() for name in addresses}
        for name, queue in self._wake_queues.items():
            queue.on_demand = self._look[name].set
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
        self._ended = True
        for look in self._look.values():
            look.set()
        for thread in self._threads:
            thread.join(_PROBE_SECONDS + 1)

    def _probe_until_end(self, name: str, address: str) -> None:
        look = self._look[name]
        while not self._ended:
            look.clear()
            health = probe(name, address, _PROBE_SECONDS)
            service = self._seen(name, address, health)
            self._publish(service)
            queue = service.wake_queue
            quiet = health.healthy or (service.asleep and queue is not None and not queue.waiting)
            if self._ended:
                return
            look.wait(_BETWEEN_PROBES if quiet else _BETWEEN_PROBES / 5)

    def _seen(self, name: str, address: str, health: Health) -> Service:
        queue = self._wake_queues.get(name)
        if queue is None or not (health.healthy or health.away):
            return Service(
                name=name,
                address=address,
                healthy=health.healthy,
                message=health.message,
                versions=health.versions,
                wake_queue=queue,
            )
        problem = "" if health.healthy else self.explain(name)
        queue.note(awake=health.healthy, problem=problem)
        return Service(
            name=name,
            address=address,
            healthy=not problem,
            asleep=not health.healthy,
            message=health.message if health.healthy else queue.state.message,
            versions=health.versions,
            wake_queue=queue,
        )


def static_launcher(
    trainers: dict[str, str], sparsifier: str, wake_queues: Collection[tuple[str, WakeQueue]] = ()
) -> StaticLauncher:
    """Return the launcher for given trainers (host:port by backend) and sparsifier (host:port or empty)."""
    return StaticLauncher({**({SPARSIFIER: sparsifier} if sparsifier else {}), **trainers}, wake_queues)
