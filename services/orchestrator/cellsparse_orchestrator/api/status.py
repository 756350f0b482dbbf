"""Build the answer of GetStatus."""

import importlib.metadata
import os
from collections.abc import Sequence
from functools import cache

from cellsparse_orchestrator.launchers.base import Service
from cellsparse_proto.v1 import orchestrator_pb2


def read_status(
    address: str,
    services: Sequence[Service],
    absent: Sequence[Service],
    *,
    active_runs: int,
    store_url: str,
    max_pixels: int,
    waiting: str,
) -> orchestrator_pb2.GetStatusResponse:
    """Return the orchestrator's own state and that of all other services, as last seen."""
    own = orchestrator_pb2.ServiceStatus(
        name="orchestrator",
        address=address,
        healthy=True,
        pid=os.getpid(),
        message=f"cellsparse-orchestrator {_version()}",
    )
    return orchestrator_pb2.GetStatusResponse(
        services=[own, *map(_status, services)],
        active_runs=active_runs,
        store_url=store_url,
        max_pixels=max_pixels,
        absent=map(_status, absent),
        waiting=waiting,
    )


@cache
def _version() -> str:
    return importlib.metadata.version("cellsparse-orchestrator")


def _status(service: Service) -> orchestrator_pb2.ServiceStatus:
    sleep = service.wake_queue.state if service.asleep and service.wake_queue else None
    return orchestrator_pb2.ServiceStatus(
        name=service.name,
        address=service.address,
        healthy=service.healthy,
        pid=service.pid,
        message=sleep.message if sleep else service.message,
        asleep=service.asleep,
        waking=sleep is not None and sleep.waking,
    )
