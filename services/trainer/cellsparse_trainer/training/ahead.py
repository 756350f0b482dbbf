"""A training's batches, made ahead of it by other processes."""

import contextlib
from collections.abc import Iterator

from cellsparse_trainer.contract import Training
from cellsparse_trainer.data.prefetch import Prefetch


@contextlib.contextmanager
def ahead(training: Training, workers: int, steps: int) -> Iterator[None]:
    """Make a training's batches in worker processes, if there are any.

    Args:
        training: Takes its batches from them within the block.
        workers: Number of processes, from 0.
        steps: Steps of the training in all.
    """
    if workers == 0:
        yield
        return
    sampler = training.batches
    prefetch = Prefetch(sampler, workers=workers, steps=steps)
    training.batches = prefetch
    try:
        yield
    finally:
        training.batches = sampler
        prefetch.close()
