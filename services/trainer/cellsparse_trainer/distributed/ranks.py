"""Which part of a training one process does, where several train one model together.

All ranks draw from the same batches: a crop is a pure function of the seed, the step and its index in the step. Each
rank makes the crops of its share. So W processes with batches of b crops train on the same data as one with W * b.

Nor does anything else of a training depend on the number of ranks: rank 0's checkpoint is that of all. So fewer ranks
may go on with it where a node was lost. They share the same crops, each has more of them, and steps and learning rate
stay those of all nodes that were asked for (`Plan.world`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_FIRST_CROP = 2
"""Third number of the seed of a step's first crop; 1 is that of orders of items."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """One process among those that train together.

    Raises:
        ValueError: The rank is not below the number of processes.
    """

    rank: int = 0
    """Number of this process, from 0; 0 leads: it validates, writes checkpoints and reports."""
    world: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Number of this process on its node, from 0: it takes the GPU of that number."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"The rank is {self.rank}; allowed: 0 to {self.world - 1}.")

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.world == 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Return the indices of this rank's share of `count` things, such as a step's crops; shares are about equal."""
        return range(count * self.rank // self.world, count * (self.rank + 1) // self.world)


ALONE = Ranks()


def find_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return the ranks in the variables RANK, WORLD_SIZE and LOCAL_RANK, as torchrun and `spawn` set them."""
    number = {name: int(environment.get(name, default)) for name, default in _VARIABLES.items()}
    return Ranks(rank=number["RANK"], world=number["WORLD_SIZE"], local_rank=number["LOCAL_RANK"])


_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def crop_random(seed: int, step: int, index: int) -> np.random.Generator:
    """Return the random numbers of one crop.

    Args:
        seed: The run's.
        step: Number of the step, from 0.
        index: Index of the crop among all crops of the step, from 0.
    """
    return np.random.default_rng([seed, step, _FIRST_CROP + index])
