"""Which calls a server admits: a bound for all, shares for connections and machines, and threads for urgent calls.

Each running call occupies a thread, a stream as long as it is open, and any call until its request has come. Without
bounds one client's idle streams, or calls that send no request, would take all threads. Health checks would then fail,
and whoever supervises the server would kill it for being busy. Streams that only wait hold no thread (see
`waiting_streams`). They are counted apart.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import grpc

from cellsparse_common.errors import Busy
from cellsparse_common.rpc.callers import source
from cellsparse_common.rpc.openings import Openings

HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
LOOKS = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/cellsparse.v1.OrchestratorService/GetStatus",
        "/cellsparse.v1.TrainerService/Describe",
    }
)
"""Calls that only look, and return at once."""
ENDS = frozenset(
    {
        "/cellsparse.v1.OrchestratorService/CancelRun",
        "/cellsparse.v1.StudyService/CancelStudy",
        "/cellsparse.v1.TrainerService/StopTraining",
    }
)
"""Calls that end work, and may wait for its end."""
FOLLOWS = frozenset({HEALTH_WATCH})
"""Calls that hold no thread once they are open."""
WATCHES = frozenset({"/cellsparse.v1.OrchestratorService/WatchRun", "/cellsparse.v1.StudyService/WatchStudy"})
"""Calls whose methods yield a `Pause` wherever they wait, and then hold no thread (see `waiting_streams`)."""
KEPT_THREADS = 16
"""For each kind of urgent call, for the beginning of those that hold no thread later, and for refusals."""


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    """How many calls of a kind may run at once."""

    what: str
    setting: str
    total: int
    connection: int
    machine: int


class _Running:
    """Counts running calls of a kind, by connection and by machine."""

    def __init__(self, bounds: _Bounds) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._connections: Counter[str] = Counter()
        self._machines: Counter[str] = Counter()

    @contextmanager
    def count(self, peer: str) -> Iterator[None]:
        """Count a call while it runs; raises Busy."""
        machine = source({}, peer)
        with self._lock:
            self._check(peer, machine)
            self._connections[peer] += 1
            self._machines[machine] += 1
        try:
            yield
        finally:
            with self._lock:
                _decrease(self._connections, peer)
                _decrease(self._machines, machine)

    def _check(self, peer: str, machine: str) -> None:
        what, total = self._bounds.what, self._bounds.total
        server = f"a server of {total} {what} at once ({self._bounds.setting}) allows"
        if self._connections[peer] >= self._bounds.connection:
            raise Busy(
                f"This connection has {self._connections[peer]} {what} open, and {server} {self._bounds.connection}. "
                "Try again when one has ended."
            )
        if self._connections.total() >= total:
            raise Busy(
                f"All {total} {what} that this server takes at once ({self._bounds.setting}) are running. "
                "Try again in a moment."
            )
        if self._machines[machine] >= self._bounds.machine:
            raise Busy(
                f"This machine has {self._machines[machine]} {what} open, and {server} {self._bounds.machine}. "
                "Try again when one has ended."
            )


class Admission:
    """Counts the running calls of a server.

    Args:
        limit: Calls that may run at once, beside urgent ones; one connection may hold three quarters of them, all
            connections of one machine seven eighths, and of these a quarter may wait for their requests to come.
        watchers: Streams of `WATCHES` that may be open at once, beside the calls. One connection may hold as many as of
            calls, all connections of one machine seven eighths. None: as many as there may be calls.
    """

    def __init__(self, limit: int, watchers: int | None = None) -> None:
        self.limit = limit
        self.share = max(1, limit - limit // 4)
        most = limit if watchers is None else watchers
        self._calls = _Running(
            _Bounds(
                what="calls",
                setting="CELLSPARSE_WORKERS",
                total=limit,
                connection=self.share,
                machine=max(1, limit - limit // 8),
            )
        )
        self._watches = _Running(
            _Bounds(
                what="watching streams",
                setting="CELLSPARSE_WATCHERS",
                total=most,
                connection=self.share,
                machine=max(1, most - most // 8),
            )
        )
        self._lock = threading.Lock()
        self._followers: Counter[str] = Counter()
        self._opening = Openings(max(4, limit // 4))
        lanes = (("looks", LOOKS), ("ends", ENDS), ("follows", FOLLOWS), ("watches", WATCHES))
        self._kept = {methods: ThreadPoolExecutor(KEPT_THREADS, thread_name_prefix=name) for name, methods in lanes}
        self._opening_urgent = {methods: Openings(3 * KEPT_THREADS // 4) for methods in self._kept}

    def kept_threads(self, method: str) -> ThreadPoolExecutor | None:
        """Return the threads that are kept for an urgent method, or to begin one that waits; None for any other one."""
        return next((threads for methods, threads in self._kept.items() if method in methods), None)

    def admit(self, method: str, peer: str) -> AbstractContextManager[None]:
        """Count a call while it runs.

        Args:
            method: Its full name.
            peer: The connection that it came on, as `grpc.ServicerContext.peer` gives it.

        Raises:
            Busy: Too many calls are running; raised when the block begins.
        """
        if method in WATCHES:
            return self._watches.count(peer)
        return nullcontext() if self.kept_threads(method) is not None else self._calls.count(peer)

    def admit_health_stream(self, context: grpc.ServicerContext) -> None:
        """Count a stream that watches health until it ends. One machine may have half as many as there may be calls.

        Raises:
            Busy: Too many are open.
        """
        machine = source({}, context.peer())
        most = max(1, self.limit // 2)
        with self._lock:
            if self._followers[machine] >= most or self._followers.total() >= self.limit:
                raise Busy(
                    f"{self._followers.total()} streams watch the health of this server, {self._followers[machine]} "
                    f"from here; allowed: {self.limit} and {most}. Ask with Check, or again in a moment."
                )
            self._followers[machine] += 1

        def ended() -> None:
            with self._lock:
                _decrease(self._followers, machine)

        if not context.add_callback(ended):
            ended()

    def request(self, method: str, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """Return the one message of a call's request when it has come.

        Raises:
            Busy: Too many calls of this machine have begun just now.
            Cancelled: It did not come; or too many calls send none, and this one has waited for the longest time.
            InvalidArgument: The caller sends none.
        """
        opening = next((o for methods, o in self._opening_urgent.items() if method in methods), self._opening)
        return opening.request(method, requests, context)


def _decrease(counter: "Counter[str]", key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def most_waiting(limit: int) -> int:
    """Return how many calls may hold threads, wait and be refused at once; gRPC itself refuses any further one."""
    return 4 * limit + 8 * KEPT_THREADS


def new_threads(limit: int) -> ThreadPoolExecutor:
    """Return the threads of all calls that are not urgent, with some that are left to refuse what is too much."""
    return ThreadPoolExecutor(limit + KEPT_THREADS, thread_name_prefix="rpc")
