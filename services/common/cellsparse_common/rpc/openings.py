"""Calls that have begun and whose request has not come yet: bounded, so that they cannot hold all threads."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from cellsparse_common.errors import Busy, Cancelled, InvalidArgument
from cellsparse_common.rpc.callers import source

OPEN_SECONDS = 300.0
"""How long a request may take to come: one of 128 MiB over 4 Mbit/s."""
YOUNG_SECONDS = 2.0
BURST_SECONDS = 0.25
"""The requests of calls that begin at the same moment come within this time: one call too many waits so long."""


@dataclass(frozen=True, eq=False)
class _Opening:
    machine: str
    since: float
    cancel: Callable[[], object]


class Openings:
    """Waits for requests.

    Args:
        limit: Calls of one machine that may wait at once. Another one takes the place of the oldest, unless that is
            younger than `YOUNG_SECONDS`: a request that is on its way comes sooner.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._open: list[_Opening] = []

    def request(self, method: str, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """Return the message of a request.

        Raises:
            Busy: Too many calls of this machine have begun just now.
            Cancelled: It did not come.
            InvalidArgument: The caller sends none.
        """
        opening = _Opening(source({}, context.peer()), time.monotonic(), context.cancel)
        with self._changed:
            self._wait_for_room(opening)
            late = self._make_room(opening)
            self._open.append(opening)
        for each in late:
            each.cancel()
        try:
            return next(requests)
        except StopIteration:
            raise InvalidArgument(f"The call of {method} has no request.") from None
        except grpc.RpcError as error:
            raise Cancelled(f"The request of {method} did not come.") from error
        finally:
            with self._changed:
                if opening in self._open:
                    self._open.remove(opening)
                self._changed.notify()

    def _of_machine(self, machine: str) -> list[_Opening]:
        return [each for each in self._open if each.machine == machine]

    def _wait_for_room(self, opening: _Opening) -> None:
        """Wait as long as the others that wait have only just begun."""
        while len(mine := self._of_machine(opening.machine)) >= self._limit:
            left = mine[0].since + BURST_SECONDS - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _make_room(self, opening: _Opening) -> list[_Opening]:
        """Forget and return those that wait no longer: what is too old, and what is too much."""
        late = [each for each in self._open if opening.since - each.since > OPEN_SECONDS]
        mine = [each for each in self._of_machine(opening.machine) if each not in late]
        if len(mine) >= self._limit:
            if opening.since - mine[0].since < YOUNG_SECONDS:
                raise Busy(
                    f"{len(mine)} calls from here have begun and not sent their requests yet; allowed: {self._limit}. "
                    "Try again in a moment."
                )
            late.append(mine[0])
        self._open = [each for each in self._open if each not in late]
        return late
