"""Health checks of other services."""

import http.client
from dataclasses import dataclass, field
from http import HTTPStatus

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cellsparse_common.rpc.channel import open_channel
from cellsparse_orchestrator.launchers.base import GATEWAY, SPARSIFIER
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc

_REFUSED = (grpc.StatusCode.UNAUTHENTICATED.name, grpc.StatusCode.PERMISSION_DENIED.name)
_AWAY = (grpc.StatusCode.UNAVAILABLE.name, grpc.StatusCode.DEADLINE_EXCEEDED.name)


@dataclass(frozen=True, kw_only=True)
class Health:
    """What a service answered."""

    healthy: bool
    message: str = ""
    """What is wrong; if nothing is, versions and devices."""
    away: bool = False
    """Whether nothing is known but that nobody answers, so that it may just not run."""
    versions: dict[str, str] = field(default_factory=dict)


def probe(name: str, address: str, seconds: float) -> Health:
    """Check the health of a service; ask a trainer for its backend, versions and devices as well.

    Args:
        name: One of `NOT_TRAINERS`, or the backend that the trainer must have.
        address: host:port.
        seconds: Longest time in all.
    """
    if name == GATEWAY:
        return _probe_gateway(address, seconds)
    try:
        with open_channel(address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=seconds / 2)
            if answer.status != health_pb2.HealthCheckResponse.SERVING:
                return Health(healthy=False, away=True, message=f"{name} at {address} is not serving now.")
            if name == SPARSIFIER:
                return Health(healthy=True)
            stub = trainer_pb2_grpc.TrainerServiceStub(channel)
            described = stub.Describe(trainer_pb2.DescribeRequest(), timeout=seconds / 2)
    except grpc.RpcError as error:
        code = error.code().name if isinstance(error, grpc.Call) else "an error"
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED.name:
            return Health(healthy=True, message=f"{name} at {address} has more calls than it takes at once.")
        if code in _REFUSED:
            return Health(healthy=False, message=f"{name} at {address} refuses the orchestrator: {error.details()}")
        return Health(healthy=False, away=code in _AWAY, message=f"{name} at {address} answers {code}.")
    if described.backend != name:
        return Health(healthy=False, message=f"{address} is a {described.backend!r} trainer; {name!r} was expected.")
    parts = [f"{package} {version}" for package, version in sorted(described.versions.items())]
    return Health(healthy=True, message=", ".join([*parts, *described.devices]), versions=dict(described.versions))


def _probe_gateway(address: str, seconds: float) -> Health:
    """Check the gateway, the one service that speaks HTTP."""
    connection = http.client.HTTPConnection(address, timeout=seconds)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Health(healthy=False, message=f"{GATEWAY} at {address} does not answer: {error}.")
    finally:
        connection.close()
    if status != HTTPStatus.OK:
        return Health(healthy=False, message=f"{GATEWAY} at {address} answers {status}.")
    return Health(healthy=True, message=f"the page is at http://{address}")
