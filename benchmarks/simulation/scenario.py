"""A scenario: one cluster and the runs submitted to it."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A cluster and its runs. All times are seconds of real time."""

    nodes: int
    gpus: int
    """GPUs per node; each trains one run at a time."""
    runs: int
    """All submitted at once, as fast as they are accepted."""
    run_seconds: float
    """Mean time of a training; a run takes 0.5 to 1.5 times as long."""
    start_seconds: float
    """Time from a pod's scheduling to its trainer's first answer."""
    event_seconds: float
    """Time between two events of a trainer; real trainers report once a second."""
    node_mtbf_seconds: float
    """Mean time between failures of a node; 0 for no failures."""
    repair_seconds: float
    """Time until a failed node is back."""
    eviction_share: float
    """Fraction of pods that are evicted while they train."""
    compression: float
    """How many times longer a real training takes than a simulated one."""
    seed: int = 0

    @property
    def slots(self) -> int:
        """Number of GPUs in the cluster."""
        return self.nodes * self.gpus

    def to_json(self) -> str:
        """Return the scenario as one command-line argument."""
        return json.dumps(asdict(self))


def from_json(text: str) -> Scenario:
    """Return the scenario that `to_json` wrote."""
    return Scenario(**json.loads(text))
