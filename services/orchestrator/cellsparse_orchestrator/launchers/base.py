"""What the orchestrator needs of whatever runs the other services."""

from dataclasses import dataclass, field
from typing import Protocol

SPARSIFIER = "sparsifier"
"""The name of the service that is not a trainer."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Another service, as far as it is known now."""

    name: str
    """`SPARSIFIER` or the trainer's backend."""
    address: str = ""
    """host:port; empty while it does not answer."""
    healthy: bool = False
    """It answered SERVING when last asked."""
    pid: int = 0
    """Process id on this machine; 0 if it runs elsewhere."""
    message: str = ""
    """What is wrong, or versions and devices."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that matter, as the trainer described itself."""
    missing: bool = False
    """It cannot be started at all, so waiting is of no use."""


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

    def place(self, backend: str, run_id: str, attempt: int) -> Service:
        """Return the trainer for an attempt, and see to it that there will be one. Idempotent.

        The answer's `address` is empty while it is not ready, `missing` says that it will never be.
        """

    def release(self, run_id: str, attempt: int) -> None:
        """Take back what `place` made for an attempt that has ended. Idempotent."""
