"""Samples that are made when asked for, so that only what a sampler keeps of them takes memory."""

from collections.abc import Sequence

import numpy as np
from support.tiny_dataset import blobs, sparse

from cellsparse_trainer.data.samples import Sample


class GeneratedSamples(Sequence):
    def __init__(self, count, size=64):
        self.count = count
        self.size = size

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        image, label = blobs(self.size, seed=index)
        return Sample(name=f"item{index}", image=(image / 255).astype(np.float32), label=sparse(label))
