"""What the orchestrator needs of whatever runs the other services."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cellsparse_proto.v1 import common_pb2

SPARSIFIER = "sparsifier"
"""The name of the service that is not a trainer."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many processes train one model."""

    nodes: int = 1
    processes: int = 1
    """On each node."""


ONE = Size()
"""One process alone."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Another service, as far as it is known now."""

    name: str
    """`SPARSIFIER` or the trainer's backend."""
    address: str = ""
    """host:port; empty while it does not answer."""
    healthy: bool = False
    """It answered SERVING when last asked."""
    hosts: tuple[str, ...] = ()
    """Of a training on several nodes, where its trainers are, as host:port; the first is `address`. Empty where
    there is one trainer, which starts all processes."""
    pid: int = 0
    """Process id on this machine; 0 if it runs elsewhere."""
    message: str = ""
    """What is wrong, or versions and devices."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that matter, as the trainer described itself."""
    missing: bool = False
    """It cannot be started at all, or has ended for good, so waiting is of no use."""
    reason: int = common_pb2.FAILURE_REASON_UNSPECIFIED
    """Why it is missing (proto `FailureReason`), where that is known."""
    waiting: bool = False
    """It waits for room, so the time until it answers says nothing about it."""
    no_room: bool = False
    """There is none now: what comes later should not be placed before it."""
    again_seconds: float = 15.0
    """While it waits: when to ask again, if nothing is told by `Launcher.notify` before."""


class Launcher(Protocol):
    """Runs the other services, or knows where they run."""

    stops_trainers: bool
    """Whether trainers end with the orchestrator."""

    def start(self) -> None:
        """Start, adopt or find the services; returns at once."""

    def stop(self) -> None:
        """End what was started here, in bounded time."""

    def services(self) -> list[Service]:
        """Return all services, as they were when last looked at."""

    def service(self, name: str) -> Service | None:
        """Return the service with this name; None if it is not configured."""

    def ensure(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Return the trainer for an attempt, and see to it that there will be one. Idempotent.

        The answer's `address` is empty while it is not ready, with all its nodes; `missing` says that it will never be.
        """

    def find(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Return the trainer of an attempt that was accepted before: as `place`, but a new one is never made.

        A new one would not know the attempt.
        """

    def release(self, run_id: str, attempt: int) -> None:
        """Take back what `place` made for an attempt that has ended; returns at once. Idempotent."""

    def subscribe(self, run_id: str, attempt: int, news: Callable[[], None]) -> None:
        """Call `news` when an answer of `place` or `find` that says `waiting` may have changed, until `release`."""

    def keep_only(self, under_way: Callable[[], set[tuple[str, int]]]) -> bool:
        """Take back what was made for attempts, as (run id, number), that are not under way any more.

        `release` may have been missed: an orchestrator that was killed has not called it. Returns False if it is not
        known yet what there is.
        """
