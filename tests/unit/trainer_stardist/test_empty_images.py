"""Images that show labelled background only are trained on, too."""

import numpy as np

from cellsparse_stardist.data import Sampler
from cellsparse_trainer.data.samples import Sample


def test_an_image_without_a_cell_is_a_good_example(dense_sample, tiny):
    empty = Sample(name="empty", image=np.full((48, 56), 0.1, np.float32), label=np.zeros((48, 56), np.int32))
    for samples in ([dense_sample, empty], [empty, dense_sample, empty]):
        sampler = Sampler(samples, tiny(batch_size=4))
        batches = [sampler.batch(step) for step in range(8)]
        assert all(np.isfinite(np.asarray(part)).all() for batch in batches for part in vars(batch).values())
