"""What is simulated: one cluster and the runs that come to it."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """All times are seconds of the simulation's own clock, which is the machine's."""

    nodes: int
    gpus: int
    """Of each node; one training each."""
    runs: int
    """All asked for at once, as fast as they are accepted."""
    run_seconds: float
    """Mean time of training; a run takes between half and one and a half of it."""
    start_seconds: float
    """From a pod's placement to its trainer's first answer."""
    event_seconds: float
    """Between two events of a trainer; real ones report once a second."""
    node_mtbf_seconds: float
    """Mean time of a node between two failures; 0: none fails."""
    repair_seconds: float
    """Until a node that failed is there again."""
    eviction_share: float
    """Share of the pods that are evicted while they train."""
    compression: float
    """How many seconds of a real cluster one second stands for, where it comes to the length of a training."""
    seed: int = 0

    @property
    def places(self) -> int:
        """GPUs in all."""
        return self.nodes * self.gpus

    def to_json(self) -> str:
        """Return it as one argument of a command line."""
        return json.dumps(asdict(self))


def from_json(text: str) -> Scenario:
    """Return what `to_json` wrote."""
    return Scenario(**json.loads(text))
