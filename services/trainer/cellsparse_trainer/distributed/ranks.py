"""Which part of a training is one process' own, where several train one model together.

All ranks draw from the same batches: the crops of a step are a pure function of the seed, the step and their place in
it, and each rank makes those of its share. So W processes with batches of b train on what one with W * b trains on.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_FIRST_CROP = 2
"""Third number of the seed of a step's first crop; 1 is that of orders of items."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """A process' place among those that train together.

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
        """Return which of a number of things, such as a step's crops, are this rank's: equal parts where possible."""
        return range(count * self.rank // self.world, count * (self.rank + 1) // self.world)


ALONE = Ranks()


def find_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return what the launcher says in the variables RANK, WORLD_SIZE and LOCAL_RANK, which torchrun sets, too."""
    number = {name: int(environment.get(name, default)) for name, default in _VARIABLES.items()}
    return Ranks(rank=number["RANK"], world=number["WORLD_SIZE"], local_rank=number["LOCAL_RANK"])


_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def crop_random(seed: int, step: int, place: int) -> np.random.Generator:
    """Return the random numbers of one crop.

    Args:
        seed: The run's.
        step: Number of the step, from 0.
        place: Of the crop among all crops of the step, from 0.
    """
    return np.random.default_rng([seed, step, _FIRST_CROP + place])
