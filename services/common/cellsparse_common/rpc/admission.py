"""Which calls a server admits: a bound for all, a share for each connection, and threads kept for urgent calls.

Each running call occupies a thread, a stream as long as it is open. Without bounds one client's idle streams would take
all threads. Health checks would then fail, and whoever supervises the server would kill it for being busy.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from cellsparse_common.errors import ResourceExhausted

HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
"""Its servicer holds no thread while a stream is open."""
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
KEPT_THREADS = 4
"""For each kind of urgent call, and for refusals."""


class Admission:
    """Counts the running calls of a server.

    Args:
        limit: Calls that may run at once, beside urgent ones; one connection may hold three quarters of them.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.share = max(1, limit - limit // 4)
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._kept = {
            methods: ThreadPoolExecutor(KEPT_THREADS, thread_name_prefix=name)
            for name, methods in (("looks", LOOKS), ("ends", ENDS))
        }

    def kept_threads(self, method: str) -> ThreadPoolExecutor | None:
        """Return the threads that are kept for an urgent method; None for any other one."""
        return next((threads for methods, threads in self._kept.items() if method in methods), None)

    @contextmanager
    def admit(self, method: str, peer: str) -> Iterator[None]:
        """Count a call while it runs.

        Args:
            method: Its full name.
            peer: The connection that it came on, as `grpc.ServicerContext.peer` gives it.

        Raises:
            ResourceExhausted: Too many calls are running.
        """
        if method in LOOKS or method in ENDS:
            yield
            return
        with self._lock:
            self._check(peer)
            self._running[peer] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[peer] -= 1
                if not self._running[peer]:
                    del self._running[peer]

    def _check(self, peer: str) -> None:
        if self._running[peer] >= self.share:
            raise ResourceExhausted(
                f"This connection has {self._running[peer]} calls open, and a server of {self.limit} calls at once "
                f"(CELLSPARSE_WORKERS) allows {self.share}. Try again when one has ended."
            )
        if self._running.total() >= self.limit:
            raise ResourceExhausted(
                f"All {self.limit} calls that this server takes at once (CELLSPARSE_WORKERS) are running. "
                "Try again in a moment."
            )


def most_waiting(limit: int) -> int:
    """Return how many calls may run, wait and be refused at once; gRPC itself refuses any further one."""
    return 4 * limit + 8 * KEPT_THREADS


def new_threads(limit: int) -> ThreadPoolExecutor:
    """Return the threads of all calls that are not urgent, with some that are left to refuse what is too much."""
    return ThreadPoolExecutor(limit + KEPT_THREADS, thread_name_prefix="rpc")
