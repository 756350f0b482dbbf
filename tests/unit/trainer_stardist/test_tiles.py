"""Large images: tiled, StarDist finds what it finds on the whole."""

import dataclasses

import numpy as np
import pytest
from unit.trainer_stardist.conftest import disks

from cellsparse_common.imaging.images import normalize
from cellsparse_stardist import model, tiles
from cellsparse_stardist.network import build_network
from cellsparse_trainer.data.fed_image import FedImage
from cellsparse_trainer.models.windows import segment_large

NETWORKS = [
    {"unet_depth": 3, "grid": 2},
    {"unet_depth": 1, "grid": 4},
    {"unet_depth": 2, "grid": 1},
]


@pytest.fixture
def image():
    noise = np.random.default_rng(0).random((230, 301), np.float32)
    return disks((230, 301), 3, sparse=False).image + 0.3 * noise


@pytest.fixture(params=NETWORKS, ids=str)
def network(request, tiny, image):
    config = tiny(**request.param)
    made = model.StardistModel(build_network(config, 8.0), config)
    prob, _ = made.stock.predict(image, show_tile_progress=False)
    made.stock.thresholds = {"prob": float(np.quantile(prob, 0.9)), "nms": 0.3}
    return made


def drawing_as_stock(network):
    """Return a model of the same weights that draws cells as the stock tool does."""
    config = dataclasses.replace(network._config, average_rays=False, edge_margin=2)
    return model.StardistModel(network.stock, config)


def test_tiles_equal_the_whole(network, image, monkeypatch):
    whole = network.predict(image)
    maps = network.stock.predict(image, n_tiles=(1, 1), show_tile_progress=False)
    monkeypatch.setattr(tiles, "TILE", 80)
    assert tiles.tiles(image.shape, (1, 1)) == (3, 4)
    tiled = network.stock.predict(image, n_tiles=(3, 4), show_tile_progress=False)
    for one, other in zip(maps, tiled, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert whole.max() > 1
    np.testing.assert_array_equal(network.predict(image), whole)


def test_tiles_overlap_by_all_the_network_sees(network):
    # Measured from the middle of what is pooled together, not from its border.
    pooled = network.stock.config.grid[0] * 2**network.stock.config.unet_n_depth
    measured = max(max(sides) for sides in network.stock._compute_receptive_field())
    assert measured - pooled < tiles.reach(network.stock.config)[0] <= measured + 2


def test_an_untiled_image_gives_what_stock_gives(network, image):
    labels, _ = network.stock.predict_instances(image, show_tile_progress=False)
    np.testing.assert_array_equal(drawing_as_stock(network).predict(image), labels)


def test_equal_probabilities_compete_in_the_order_of_pixels(network, image, monkeypatch):
    flat = np.full(image.shape, 0.5, np.float32)
    whole = network.predict(flat)
    monkeypatch.setattr(tiles, "TILE", 80)
    np.testing.assert_array_equal(network.predict(flat), whole)


def test_windows_find_the_cells_of_the_whole(network, image):
    image = normalize(image, 0, 100)
    whole = network.segment(image)
    found = segment_large(network, FedImage(image, lambda part: part, 0, 100), side=64)
    assert len(whole.scores) > 1
    assert len(found.scores) == len(whole.scores)
    np.testing.assert_allclose(np.sort(found.scores), np.sort(whole.scores), atol=1e-5)
    assert ((found.labels > 0) == (whole.labels > 0)).mean() > 0.999
