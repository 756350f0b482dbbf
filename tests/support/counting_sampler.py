"""A sampler without data, for tests of what draws batches ahead."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellsparse_common.errors import StorageError


@dataclass(frozen=True)
class CountingSampler:
    """Batches of random numbers; `log` names a file that gets a line for every batch made."""

    seed: int
    log: str
    act: str = ""
    at: int = 3
    size: int = 10

    def batch(self, step):
        with Path(self.log).open("a") as file:
            file.write(f"{step} {os.getpid()}\n")
        if step == self.at:
            if self.act == "raise":
                raise StorageError("The image of item 'a' is damaged.")
            if self.act == "memory":
                np.zeros(2**62, np.int8)
            if self.act == "exit":
                os._exit(7)
            if self.act == "hang":
                time.sleep(60)
        return np.random.default_rng([self.seed, step]).random(self.size)
