"""Who makes a call, for sharing a queue fairly: its owner, and which of the owner's clients.

An orchestrator passes calls on to trainers over one connection. It says for whom in their metadata.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import grpc

_OWNER_KEY, _MEMBER_KEY = "cellsparse-owner", "cellsparse-member"
_LENGTH = 200
"""Most characters of a name that are kept."""


@dataclass(frozen=True)
class Caller:
    """Who makes a call."""

    owner: str
    """A project, or the machine that the call comes from: owners get equal shares."""
    member: str
    """One of the owner's clients, such as a connection."""

    def to_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what tells the next service of this caller."""
        return ((_OWNER_KEY, _ascii(self.owner)), (_MEMBER_KEY, _ascii(self.member)))


def caller_of(context: grpc.ServicerContext) -> Caller:
    """Return who makes a call, as a service between says; without one, as its connection does.

    For services whose callers are other services: a client could call itself anything.
    """
    metadata = _metadata(context)
    direct = connection_of(context)
    return Caller(metadata.get(_OWNER_KEY, direct.owner)[:_LENGTH], metadata.get(_MEMBER_KEY, direct.member)[:_LENGTH])


def connection_of(context: grpc.ServicerContext) -> Caller:
    """Return who makes a call as its connection says; a gateway tells which browser it calls for."""
    origin = source(_metadata(context), context.peer())
    return Caller(origin, f"{origin} {context.peer()}")


def source(metadata: Mapping[str, str], peer: str) -> str:
    """Return the address of a caller without its port; what a gateway says of a browser's stands first.

    Args:
        metadata: What came with the call.
        peer: The connection that it came on, as `grpc.ServicerContext.peer` gives it.
    """
    kind, _, address = peer.partition(":")
    here = address.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer
    said = metadata.get("x-forwarded-for", "")
    return f"{said} by {here}" if said else here


def _metadata(context: grpc.ServicerContext) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()[:_LENGTH]
