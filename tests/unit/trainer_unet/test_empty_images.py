"""Images that show labelled background only are trained on, too."""

import numpy as np

from cellsparse_trainer.data.samples import Sample
from cellsparse_unet.data import Sampler


def test_an_image_without_a_cell_is_a_good_example(cell_sample, make_config):
    empty = Sample(name="empty", image=np.full((48, 56), 0.1, np.float32), label=np.zeros((48, 56), np.int32))
    for samples in ([cell_sample, empty], [empty, cell_sample, empty]):
        sampler = Sampler(samples, make_config(batch_size=4))
        found = [sampler.batch(step) for step in range(8)]
        assert all(np.isfinite(images).all() and (classes >= 0).any((1, 2)).all() for images, classes in found)
        assert any((classes <= 0).all((1, 2)).any() for _, classes in found)  # crops of the empty image
