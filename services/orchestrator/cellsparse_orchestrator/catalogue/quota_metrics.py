"""How full the quotas of projects are, for Prometheus; `cellsparse_common.rpc.metrics` lists the name."""

import threading
import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import select

from cellsparse_common.errors import CellsparseError
from cellsparse_orchestrator.catalogue.limits import read_limits, read_use
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ProjectLimitsRow

QUOTAS = ("bytes", "items", "runs", "gpu_hours")
"""What a quota may bound, as fields of `ProjectLimits` and `ProjectUse`."""
_KEPT_SECONDS = 60.0
"""How long an answer is kept: GPU hours are summed over all attempts of a project."""


def quotas_used(database: Database) -> dict[tuple[str, str], float]:
    """Return the share of each quota that is used, by project id and name of the quota (see `QUOTAS`).

    Projects without quotas are left out. A quota of 0 counts as used whole.

    Raises:
        Unavailable: The database does not answer.
    """
    found: dict[tuple[str, str], float] = {}
    with database.read() as session:
        for project_id in session.scalars(select(ProjectLimitsRow.project_id)).all():
            limits = read_limits(session, project_id)
            given = [name for name in QUOTAS if limits is not None and limits.HasField(name)]
            use = read_use(session, project_id) if given else None
            for name in given:
                most = getattr(limits, name)
                found[project_id, name] = getattr(use, name) / most if most else 1.0
    return found


class QuotaMetrics(Collector):
    """A gauge of how full quotas are, read from the database once a minute at most.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], float] = {}
        self._until = 0.0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metric, without samples while the database does not answer."""
        used = GaugeMetricFamily("cellsparse_quota_used", "Share of a quota in use.", labels=["project", "quota"])
        with self._lock:
            try:
                if time.monotonic() >= self._until:
                    self._found = {}
                    self._found = quotas_used(self._database)
                    self._until = time.monotonic() + _KEPT_SECONDS
            except CellsparseError:
                pass
            for labels, share in self._found.items():
                used.add_metric(labels, share)
        yield used

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing, so that registering the collector does not query the database."""
        return []
