"""A launcher with a simulated cluster: nodes with GPUs, and pods that take time to start, get lost and are evicted."""

import heapq
import itertools
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from simulation.pool import Pool, Seat
from simulation.scenario import Scenario

from cellsparse_orchestrator.launchers.base import ONE, Service, Size
from cellsparse_proto.v1 import common_pb2

BACKEND = "unet"
_DETECT_SECONDS = 1.0
"""Time until the cluster reports that a pod is gone; the pod's streams break at once."""
_END_SECONDS = 5.0
Key = tuple[str, int]


@dataclass(kw_only=True)
class Pod:
    """The pods of one attempt. Times are those of `time.time`; 0 until the event."""

    run_id: str
    attempt: int
    size: Size
    asked: float
    placed: float = 0.0
    ready: float = 0.0
    lost: float = 0.0
    released: float = 0.0
    reason: int = 0
    message: str = ""
    """Why it was lost, once the cluster reports it."""
    seats: tuple[Seat, ...] = field(default=())

    @property
    def key(self) -> Key:
        return self.run_id, self.attempt


class SimulatedLauncher:
    """Schedules pods first come, first served. One server is the trainer at all addresses.

    Args:
        scenario: The cluster to simulate.
        port: Port of the server of all trainers, on every loopback address.
        kill: Ends the trainer of an attempt at once, when its pod is lost.
        record: File for the history of the pods, written by `stop`.
    """

    stops_trainers = False

    def __init__(self, scenario: Scenario, port: int, kill: Callable[[str, int], None], record: Path) -> None:
        self._scenario = scenario
        self._port = port
        self._kill = kill
        self._record = record
        self._random = random.Random(scenario.seed)
        self._pool = Pool(scenario.nodes, scenario.gpus)
        self._pods: dict[Key, Pod] = {}
        self._pending: dict[Key, None] = {}
        self._gone: list[Pod] = []
        self._listeners: dict[Key, Callable[[], None]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._end = False
        self._clock = threading.Thread(target=self._tick, name="simulated-cluster", daemon=True)
        self.failures = 0

    def start(self) -> None:
        """Start the clock, so that nodes can fail (see `Launcher`)."""
        with self._changed:
            if self._scenario.node_mtbf_seconds:
                for node in range(self._scenario.nodes):
                    self._fail_later(node)
        self._clock.start()

    def stop(self) -> None:
        """Stop the clock and write the record (see `Launcher`)."""
        with self._changed:
            self._end = True
            self._changed.notify_all()
        self._clock.join(_END_SECONDS)
        pods = [
            {**asdict(pod), "nodes": [seat.node for seat in pod.seats]} for pod in [*self._gone, *self._pods.values()]
        ]
        self._record.write_text(json.dumps({"pods": pods, "node_failures": self.failures}))

    def services(self) -> list[Service]:
        """Return the trainer (see `Launcher`)."""
        return [Service(name=BACKEND, address=f"127.0.0.1:{self._port}", healthy=True, versions={"simulated": "1"})]

    def absent(self) -> list[Service]:
        """Return nothing: no trainer lacks anything here."""
        return []

    def service(self, name: str) -> Service | None:
        """Return the trainer (see `Launcher`)."""
        return self.services()[0] if name == BACKEND else None

    def ensure(self, backend: str, run_id: str, attempt: int, size: Size = ONE, project: str = "") -> Service:
        """Get or create an attempt's pod (see `Launcher`)."""
        with self._changed:
            pod = self._pods.get((run_id, attempt))
            if pod is None:
                pod = Pod(run_id=run_id, attempt=attempt, size=size, asked=time.time())
                self._pods[pod.key] = pod
                self._pending[pod.key] = None
                self._place_pending()
            return self._answer(pod)

    def find(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Get an attempt's pod (see `Launcher`)."""
        with self._changed:
            pod = self._pods.get((run_id, attempt))
            return Service(name=BACKEND, missing=True, message="its pod is gone") if pod is None else self._answer(pod)

    def preemption(self, run_id: str, attempt: int) -> str:
        """Return nothing: there are no queues here (see `Launcher`)."""
        return ""

    def release(self, run_id: str, attempt: int) -> None:
        """Delete an attempt's pod (see `Launcher`)."""
        with self._changed:
            self._listeners.pop((run_id, attempt), None)
            self._pending.pop((run_id, attempt), None)
            pod = self._pods.pop((run_id, attempt), None)
            if pod is None:
                return
            pod.released = time.time()
            self._gone.append(pod)
            if not pod.lost:
                self._pool.give_back(pod.seats)
            self._place_pending()

    def subscribe(self, run_id: str, attempt: int, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever an attempt's pod changes (see `Launcher`)."""
        with self._changed:
            self._listeners[run_id, attempt] = on_change

    def keep_only(self, under_way: Callable[[], set[Key]], unended: Callable[[], set[str]]) -> bool:
        """Delete the pods of all other attempts (see `Launcher`)."""
        with self._changed:
            existing = set(self._pods)
        for run_id, attempt in existing - under_way():
            self.release(run_id, attempt)
        return True

    def _answer(self, pod: Pod) -> Service:
        if pod.message:
            return Service(name=BACKEND, missing=True, reason=pod.reason, message=pod.message)
        if not pod.ready:
            message = "Waiting for its trainer." if pod.placed else "Waiting for a free GPU."
            return Service(name=BACKEND, waiting=True, no_room=not pod.placed, message=message)
        hosts = tuple(f"{_address(seat, self._scenario.gpus)}:{self._port}" for seat in pod.seats)
        return Service(
            name=BACKEND,
            address=hosts[0],
            hosts=hosts if len(hosts) > 1 else (),
            healthy=True,
            versions={"simulated": "1"},
        )

    def _place_pending(self) -> None:
        for key in list(self._pending):
            pod = self._pods[key]
            seats = self._pool.take(pod.size)
            if seats is None:
                return  # first come, first served: a smaller pod does not overtake
            del self._pending[key]
            pod.seats, pod.placed = seats, time.time()
            self._later(self._scenario.start_seconds, lambda pod=pod: self._make_ready(pod))
            self._notify(key)

    def _make_ready(self, pod: Pod) -> None:
        if pod.lost or pod.released:
            return
        pod.ready = time.time()
        if self._random.random() < self._scenario.eviction_share:
            after = self._random.uniform(0.1, 0.5) * self._scenario.run_seconds
            self._later(after, lambda: self._evict(pod))
        self._notify(pod.key)

    def _evict(self, pod: Pod) -> None:
        if not pod.lost and not pod.released:
            self._pool.give_back(pod.seats)
            self._lose(pod, common_pb2.FAILURE_REASON_EVICTED, "Its pod was evicted.")
            self._place_pending()

    def _fail_later(self, node: int) -> None:
        self._later(self._random.expovariate(1 / self._scenario.node_mtbf_seconds), lambda: self._fail(node))

    def _fail(self, node: int) -> None:
        self.failures += 1
        self._pool.lose(node)
        for pod in list(self._pods.values()):
            if not pod.lost and any(seat.node == node for seat in pod.seats):
                self._pool.give_back(pod.seats)  # its GPUs on other nodes
                self._lose(pod, common_pb2.FAILURE_REASON_LOST, f"Its node {node} was lost.")
        self._place_pending()
        self._later(self._scenario.repair_seconds, lambda: self._repair(node))

    def _repair(self, node: int) -> None:
        self._pool.restore(node)
        self._place_pending()
        self._fail_later(node)

    def _lose(self, pod: Pod, reason: int, message: str) -> None:
        pod.lost, pod.reason = time.time(), reason
        self._kill(pod.run_id, pod.attempt)

        def report() -> None:
            pod.message = message
            self._notify(pod.key)

        self._later(_DETECT_SECONDS, report)

    def _notify(self, key: Key) -> None:
        on_change = self._listeners.get(key)
        if on_change is not None:
            on_change()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), act))
        self._changed.notify_all()

    def _tick(self) -> None:
        with self._changed:
            while not self._end:
                while self._due and self._due[0][0] <= time.monotonic():
                    heapq.heappop(self._due)[2]()
                self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)


def _address(seat: Seat, gpus: int) -> str:
    """Return a seat's own loopback address, so that different trainers have different connections."""
    number = seat.node * gpus + seat.gpus[0]
    return f"127.{1 + number // 62500}.{1 + number // 250 % 250}.{1 + number % 250}"
