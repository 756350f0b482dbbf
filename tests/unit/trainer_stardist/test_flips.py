"""Means over an image and its mirror image: aligned on the grid, with rays the other way, the same in tiles."""

import numpy as np
import pytest

from cellsparse_stardist import backend, tiles
from cellsparse_stardist.flips import with_flips


@pytest.mark.parametrize(("grid", "depth"), [(1, 2), (2, 1), (4, 1)])
@pytest.mark.parametrize("n_rays", [8, 9])
def test_mirror_images_are_aligned(grid: int, depth: int, n_rays: int) -> None:
    """A network that answers with the pixel at each grid point says the same of a mirror image, mirrored."""
    block = grid * 2**depth
    angles = 2 * np.pi * np.arange(n_rays) / n_rays
    image = np.random.default_rng(0).random((1, 4 * block, 6 * block, 3)).astype(np.float32)
    asked = []

    def predict(given):
        asked.append(given.shape)
        points = given[:, ::grid, ::grid]
        slope = points[..., 1:] * (1 if given.shape == image.shape else -1)  # slopes turn with the image
        return [points[..., :1], slope[..., :1] * np.sin(angles) + slope[..., 1:] * np.cos(angles)]

    prob, dist = predict(image)
    mean_prob, mean_dist = with_flips(predict, grid, depth)(image)
    np.testing.assert_allclose(mean_prob, prob, atol=1e-6)
    np.testing.assert_allclose(mean_dist, dist, atol=0.1 if n_rays % 2 else 1e-6)
    assert asked[-1] == (1, 5 * block, 7 * block, 3)


def test_model_predicts_the_same_in_tiles(tiny, sparse_samples, monkeypatch) -> None:
    training = backend.create(tiny(test_flips=True), sparse_samples, "cpu")
    model = training.model()
    model.tune([])
    image = np.random.default_rng(2).random((150, 130)).astype(np.float32)
    whole = model.stock.predict_sparse(image, prob_thresh=0.0, b=0)
    monkeypatch.setattr(tiles, "TILE", 64)
    parts = model.stock.predict_sparse(image, prob_thresh=0.0, b=0, n_tiles=tiles.tiles((150, 130), (0, 0)))
    for one, other in ((whole[0], parts[0]), (whole[1], parts[1])):
        order_one, order_other = (np.lexsort(found[2].T[::-1]) for found in (whole, parts))
        np.testing.assert_allclose(one[order_one], other[order_other], atol=1e-4)
    plain = backend.create(tiny(test_flips=False), sparse_samples, "cpu").model()
    unlike = plain.stock.predict_sparse(image, prob_thresh=0.0, b=0)
    assert len(unlike[0]) == len(whole[0])
    assert np.abs(np.sort(unlike[0]) - np.sort(whole[0])).max() > 1e-6
