"""The orchestrator's Prometheus metrics; `cellsparse_common.rpc.metrics` lists their names."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cellsparse_common.errors import CellsparseError
from cellsparse_orchestrator import run_states
from cellsparse_proto.v1 import common_pb2

_QUEUE_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_STATES = [run_states.state_name(number) for number in common_pb2.RunState.values() if number]


class RunMetrics:
    """Counters and histograms of runs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue = Histogram(
            "cellsparse_queue_seconds",
            "Time from a run's creation to its first attempt.",
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.attempts = Counter("cellsparse_attempts", "Attempts that ended.", ["backend", "reason"], registry=registry)
        self.reconcile = Histogram("cellsparse_reconcile_seconds", "Time of one look at all runs.", registry=registry)

    def attempt_ended(self, backend: str, state: int, reason: int) -> None:
        """Count an attempt by its failure reason, or by its final state where there is none."""
        self.attempts.labels(backend, run_states.reason_name(reason) or run_states.state_name(state)).inc()


def add_state_gauges(
    registry: CollectorRegistry, *, leads: Callable[[], bool], ready: Callable[[], bool], store_away: Callable[[], bool]
) -> None:
    """Add gauges, 1 or 0, of what the orchestrator is in; each is asked at every scrape and must answer at once.

    Args:
        registry: Where they are added.
        leads: Whether this orchestrator leads; of several on a database one does.
        ready: Whether it has all that it needs.
        store_away: Whether attempts wait for the object store.
    """
    for name, text, answer in (
        ("cellsparse_leads", "Whether this orchestrator leads.", leads),
        ("cellsparse_ready", "Whether it has all that it needs.", ready),
        ("cellsparse_store_away", "Whether attempts wait for the object store.", store_away),
    ):
        Gauge(name, text, registry=registry).set_function(answer)


class RunCounts(Collector):
    """Gauges of runs by state, read from the database at every scrape.

    Args:
        count: Returns the number of runs by state name; raises CellsparseError.
    """

    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics, without samples while the database does not answer."""
        runs = GaugeMetricFamily("cellsparse_runs", "Runs in the database.", labels=["state"])
        queue = GaugeMetricFamily("cellsparse_queue_length", "Runs that wait for their first attempt.")
        try:
            found = self._count()
        except CellsparseError:
            found = None
        if found is not None:
            for state in _STATES:
                runs.add_metric([state], found.get(state, 0))
            queue.add_metric([], found.get(run_states.state_name(run_states.QUEUED), 0))
        yield runs
        yield queue

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering the collector does not query the database."""
        return []


class WaitingCalls(Collector):
    """Gauge of calls that wait for trainers which are asleep.

    Args:
        count: Returns the number of calls by backend.
    """

    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metric, with a sample for every backend."""
        waiting = GaugeMetricFamily(
            "cellsparse_predictions_waiting",
            "Calls that wait for a trainer to start.",
            labels=["backend"],
        )
        for backend, calls in self._count().items():
            waiting.add_metric([backend], calls)
        yield waiting

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, as the launcher is not asked before it has started."""
        return []
