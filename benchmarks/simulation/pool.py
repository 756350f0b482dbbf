"""Keep track of which GPUs of a cluster are free, without a notion of time."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from cellsparse_orchestrator.launchers.base import Size


@dataclass(frozen=True, kw_only=True)
class Seat:
    """GPUs of one node that a training holds."""

    node: int
    gpus: tuple[int, ...]


class Pool:
    """Nodes with equal GPUs. Every GPU is free, held, or lost with its node.

    Args:
        nodes: How many nodes.
        gpus: GPUs per node.
    """

    def __init__(self, nodes: int, gpus: int) -> None:
        self._free = {node: deque(range(gpus)) for node in range(nodes)}
        self._there = dict.fromkeys(range(nodes), True)
        self._with_room = dict.fromkeys(range(nodes))  # ordered: the node that has had room for longest is first
        self._gpus = gpus

    @property
    def free(self) -> int:
        """Number of free GPUs on nodes that are not lost."""
        return sum(len(self._free[node]) for node in self._with_room)

    def take(self, size: Size) -> tuple[Seat, ...] | None:
        """Take `size.processes` GPUs on each of `size.nodes` different nodes; return None if that is not possible."""
        chosen = []
        for node in self._with_room:
            if len(self._free[node]) >= size.processes:
                chosen.append(node)
                if len(chosen) == size.nodes:
                    return tuple(self._hold(node, size.processes) for node in chosen)
        return None

    def give_back(self, seats: Collection[Seat]) -> None:
        """Free what `take` returned, except on nodes that are or were lost since."""
        for seat in seats:
            if self._there[seat.node]:
                taken = [gpu for gpu in seat.gpus if gpu not in self._free[seat.node]]
                self._free[seat.node].extend(taken)
                if taken:
                    self._with_room[seat.node] = None

    def lose(self, node: int) -> None:
        """Lose a node with all its GPUs."""
        self._there[node] = False
        self._with_room.pop(node, None)

    def restore(self, node: int) -> None:
        """Bring a node back with all its GPUs free; everything that was held on it must have been given back."""
        self._there[node] = True
        self._free[node] = deque(range(self._gpus))
        self._with_room[node] = None

    def _hold(self, node: int, gpus: int) -> Seat:
        free = self._free[node]
        held = tuple(free.popleft() for _ in range(gpus))
        if not free:
            del self._with_room[node]
        return Seat(node=node, gpus=held)
