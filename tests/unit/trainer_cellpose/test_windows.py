"""Large images in windows: Cellpose finds what it finds in the whole, at any scale."""

import numpy as np
import pytest
from scipy import ndimage
from unit.trainer_cellpose.cellpose_samples import small_config

from cellsparse_cellpose import model as model_module
from cellsparse_cellpose import windows
from cellsparse_cellpose.model import CellposeModel
from cellsparse_cellpose.network import build_network
from cellsparse_trainer.data.fed_image import FedImage
from cellsparse_trainer.models.windows import segment_large

SHAPE = (190, 207)


@pytest.fixture
def image():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random(SHAPE, np.float32), 3)
    return np.asarray((noise - noise.min()) / np.ptp(noise), np.float32)


@pytest.mark.parametrize("diameter", [30.0, 21.3, 64.0])
def test_the_output_is_that_of_the_whole(image, diameter, monkeypatch):
    monkeypatch.setattr(windows, "_SIDE", 64)
    config = small_config()
    model = CellposeModel(build_network(config), config, diameter)
    whole = model._outputs(image[np.newaxis], model._scale(diameter))[0]
    large = model.windows(FedImage(image, lambda part: part, 0, 100))
    for box in ((0, 190, 0, 207), (100, 171, 64, 130), (180, 190, 200, 207)):
        found = large._flows.output(box)
        np.testing.assert_allclose(found, whole[:, box[0] : box[1], box[2] : box[3]], atol=2e-3)


def test_cells_are_those_of_the_whole(image, monkeypatch):
    monkeypatch.setattr(model_module, "SMALLEST_HALO", 64)
    monkeypatch.setattr(windows, "_SIDE", 96)
    config = small_config(size_passes=1)
    model = CellposeModel(build_network(config), config, 24.0)
    probability = model._outputs(image[np.newaxis], model._scale(24.0))[0, 2]
    config = small_config(size_passes=1, cellprob_threshold=float(np.quantile(probability, 0.9)), flow_threshold=0)
    model = CellposeModel(model._network, config, 24.0)
    whole = model.segment(image).labels
    found = segment_large(model, FedImage(image, lambda part: part, 0, 100), side=64).labels
    assert whole.max() > 1
    assert ((whole > 0) == (found > 0)).mean() > 0.995
    assert abs(int(whole.max()) - int(found.max())) <= 0.05 * whole.max() + 1
