"""Batches prepared during the step before are those that a step would draw itself."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cellsparse_torch.feed import Feed


class Numbered:
    """Batches that hold their step, and note which were drawn."""

    def __init__(self):
        self.drawn = []

    def batch(self, step):
        self.drawn.append(step)
        return SimpleNamespace(image=np.full((2, 3), step, np.float32), seed=step)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_step_gets_its_own_batch_whatever_was_prepared(ahead):
    batches, feed = Numbered(), Feed(torch.device("cpu"), vars, ahead=ahead)
    for step in (0, 1, 2, 7, 3):  # 7 and 3: as after a checkpoint is loaded
        found = feed.take(batches, step)
        assert torch.equal(found["image"], torch.full((2, 3), float(step)))
        assert found["seed"] == step
        feed.prepare(batches, step + 1)
    assert batches.drawn == ([0, 1, 2, 3, 7, 8, 3, 4] if ahead else [0, 1, 2, 7, 3])
