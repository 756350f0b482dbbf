"""The interface between the orchestrator and what runs the other services."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cellsparse_orchestrator.launchers.wake_queue import WakeQueue
from cellsparse_proto.v1 import common_pb2

SPARSIFIER = "sparsifier"
GATEWAY = "gateway"
NOT_TRAINERS = frozenset({SPARSIFIER, GATEWAY})
"""Names of services that are no trainers."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many processes train one model."""

    nodes: int = 1
    processes: int = 1
    """On each node."""
    fewest: int = 0
    """Fewest nodes that will do where no more can be had; 0: all."""


ONE = Size()
"""One process alone."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Another service, as last seen."""

    name: str
    """One of `NOT_TRAINERS`, or the trainer's backend."""
    address: str = ""
    """host:port; empty while it does not answer."""
    healthy: bool = False
    """Whether it answered SERVING when last asked, or sleeps and nothing keeps it from starting."""
    asleep: bool = False
    """Whether an autoscaler has stopped it, or starts it now."""
    wake_queue: WakeQueue | None = None
    """Where calls wait while it sleeps; None: it never does."""
    hosts: tuple[str, ...] = ()
    """Trainers of a training on several nodes, as host:port; the first is `address`. Empty for a single trainer, which
    starts all processes."""
    pid: int = 0
    """Process id on this machine; 0 if it runs elsewhere."""
    message: str = ""
    """What is wrong; if nothing is, versions and devices."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of important packages, as the trainer reports them."""
    missing: bool = False
    """Whether it cannot be started or has ended for good, so that waiting is useless."""
    reason: int = common_pb2.FAILURE_REASON_UNSPECIFIED
    """Why it is missing (proto `FailureReason`), if that is known."""
    waiting: bool = False
    """Whether it waits for the cluster, so that the time until it answers says nothing about the service itself."""
    no_room: bool = False
    """Whether the cluster has no room now; later attempts should not be started before it."""
    no_quota: bool = False
    """Whether it waits in a queue of the cluster for its project's quota; other projects' attempts may be started."""
    fewer: int = 0
    """While it waits, and has waited for long: how many nodes it could have now, at least `Size.fewest`; 0: no other
    number than it asks for."""
    again_seconds: float = 15.0
    """While it waits: when to ask again, unless a subscriber is called before (`Launcher.subscribe`)."""


class Launcher(Protocol):
    """Runs the other services, or knows where they run."""

    stops_trainers: bool
    """Whether trainers end with the orchestrator."""

    def start(self) -> None:
        """Start, adopt or find the services; return at once."""

    def stop(self) -> None:
        """End what this launcher started, in bounded time."""

    def services(self) -> list[Service]:
        """Return all services as last seen."""

    def absent(self) -> list[Service]:
        """Return the trainers that are known here and lack what they need to be started; they are no `services`."""

    def service(self, name: str) -> Service | None:
        """Return the service with this name, an absent one included; None if it is not configured."""

    def ensure(self, backend: str, run_id: str, attempt: int, size: Size = ONE, project: str = "") -> Service:
        """Get or create the trainer of an attempt; return at once. Idempotent.

        The answer's `address` is empty until the trainer and all its nodes are ready; `missing` says that it never
        will be. What was made for another size is replaced. A `project` may have a queue of its own; empty: the run
        belongs to none.
        """

    def find(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Get the trainer of an attempt that was accepted before, as `ensure` but without creating one.

        A new trainer would not know the attempt.
        """

    def preemption(self, run_id: str, attempt: int) -> str:
        """Return why a queue of the cluster took an attempt's place back, as a sentence; empty: it did not.

        Asks the cluster, which may take seconds: a trainer's last word may come before the news of its preemption.
        """

    def release(self, run_id: str, attempt: int) -> None:
        """Remove what `ensure` made for an attempt that has ended; return at once. Idempotent."""

    def subscribe(self, run_id: str, attempt: int, on_change: Callable[[], None]) -> None:
        """Call `on_change` when an answer with `waiting` may have changed, until `release`."""

    def keep_only(self, under_way: Callable[[], set[tuple[str, int]]], unended: Callable[[], set[str]]) -> bool:
        """Remove what was made for attempts, as (run id, number), that are not under way any more.

        What holds a run back that has not ended, by its id, may stay.
        An orchestrator that was killed has not called `release`. Return False if the launcher does not know yet what
        exists.
        """
