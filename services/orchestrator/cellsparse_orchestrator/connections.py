"""Connections to other services, kept for a while: a handshake for each prediction costs time on both sides.

A channel serves one call at a time, and none for long. Where a service has several replicas behind one address, that
address chooses a replica for each connection: calls at the same time must not share one, and new replicas get theirs.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from cellsparse_common.rpc.channel import open_channel

MOST_IDLE = 16
"""Most channels that are open while no call uses them."""
SECONDS = 30.0
"""Time after its opening from which on a channel takes no further call. Renewed certificates are read by then, too."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    address: str
    channel: grpc.Channel
    opened: float
    """By `time.monotonic`."""


class Connections:
    """Lends channels by address, and opens one where none is idle.

    Args:
        most_idle: Most channels that are kept while no call uses them; the oldest go.
        seconds: How long after its opening a channel takes calls.
    """

    def __init__(self, most_idle: int = MOST_IDLE, seconds: float = SECONDS) -> None:
        self._most_idle = most_idle
        self._seconds = seconds
        self._lock = threading.Lock()
        self._idle: list[_Kept] = []

    @contextmanager
    def lend(self, address: str) -> Iterator[grpc.Channel]:
        """Give a channel to a service, for one call.

        It is closed where the block raises: the service may be gone from this address.

        Raises:
            InvalidArgument: A file of the TLS of this process cannot be read.
        """
        kept = self._take(address)
        if kept is None:
            kept = _Kept(address=address, channel=open_channel(address, own_connection=True), opened=time.monotonic())
        try:
            yield kept.channel
        except BaseException:
            kept.channel.close()
            raise
        self._put_back(kept)

    def _take(self, address: str) -> _Kept | None:
        """Return the newest idle channel to a service, no longer as an idle one; None if there is none."""
        self._close_old()
        with self._lock:
            found = next((kept for kept in reversed(self._idle) if kept.address == address), None)
            if found is not None:
                self._idle.remove(found)
        return found

    def _put_back(self, kept: _Kept) -> None:
        with self._lock:
            self._idle.append(kept)
        self._close_old()

    def _close_old(self) -> None:
        """Close idle channels that are too old, whatever their address, or too many."""
        before = time.monotonic() - self._seconds
        with self._lock:
            young = [kept for kept in self._idle if kept.opened > before]
            left = young[-self._most_idle :]
            closed = [kept for kept in self._idle if kept not in left]
            self._idle = left
        for kept in closed:
            kept.channel.close()
