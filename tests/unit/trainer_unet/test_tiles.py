"""Large images: by tiles, the network gives what it gives on the whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cellsparse_common.imaging.images import normalize
from cellsparse_common.scoring.matching import match_counts
from cellsparse_trainer.data.fed_image import FedImage
from cellsparse_trainer.models.windows import segment_large
from cellsparse_unet import backend, model
from cellsparse_unet.network import UNet, initialise
from cellsparse_unet.tiles import flipped_probabilities, probabilities


def bright_on_one_side(shape):
    """Noise that brightens from left to right: tiles differ in mean and contrast, so their statistics do too."""
    noise = np.random.default_rng(0).random(shape, np.float32)
    return np.asarray(noise * np.linspace(0.1, 1, shape[-1], dtype=np.float32), np.float32)


@pytest.mark.parametrize("shape", [(150, 90), (33, 260), (200, 1)])
@pytest.mark.parametrize("tile", [32, 64])
def test_tiles_equal_the_whole(shape, tile):
    net = UNet(base_channels=4)
    initialise(net, 3)
    image = bright_on_one_side(shape)
    whole = probabilities(net, image)
    found = probabilities(net, image, tile=tile)
    assert found.shape == whole.shape == (3, *shape)
    np.testing.assert_allclose(found, whole, atol=1e-4)
    assert net.training


@pytest.mark.parametrize("shape", [(96, 64), (4, 32, 32)])
def test_bfloat16_has_fewer_digits_and_nothing_else(shape):
    net = UNet(base_channels=4, dims=len(shape), flat_levels=4 if len(shape) == 3 else 0)
    initialise(net, 3)
    image = bright_on_one_side(shape)
    exact = probabilities(net, image)
    for found in (probabilities(net, image, half=True), probabilities(net, image, half=True, tile=32)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
        assert 1e-5 < np.abs(found - exact).mean() < 0.05  # noise, and untrained weights that magnify it


def test_what_differs_is_rounding_only():
    net = UNet(base_channels=4)
    initialise(net, 3)
    image = bright_on_one_side((96, 160))
    with torch.inference_mode():
        exact = net.double()(torch.from_numpy(image)[None, None].double())[0].exp().numpy()
    error = np.abs(probabilities(net.float(), image, tile=64) - exact).max()
    assert error < 2 * np.abs(probabilities(net, image) - exact).max() + 1e-6


@pytest.mark.parametrize("shape", [(40, 70), (4, 20, 30)])
def test_mirror_images_have_mirrored_probabilities(shape):
    net = UNet(base_channels=4, dims=len(shape), flat_levels=4 if len(shape) == 3 else 0)
    initialise(net, 3)
    image = np.random.default_rng(0).random(shape, np.float32)
    found = flipped_probabilities(net, image)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    for axes in (-1, -2, (-1, -2)):
        np.testing.assert_allclose(np.flip(flipped_probabilities(net, np.flip(image, axes)), axes), found, atol=1e-5)
    assert np.abs(found - probabilities(net, image)).max() > 0.01


def test_labels_of_a_trained_model_are_the_same(cell_sample, make_config, monkeypatch):
    training = backend.create(make_config(), [cell_sample], "cpu")
    for step in range(40):
        training.train_step(step)
    trained = training.model()
    image = np.tile(cell_sample.image, (2, 2))
    for method in ("watershed", "ellipse"):
        trained.thresholds = replace(trained.thresholds, method=method, centre_threshold=0.35, cell_threshold=0.35)
        whole = trained.predict(image)
        assert whole.max() > 1
        monkeypatch.setattr(
            model, "probabilities", lambda net, pixels, half: probabilities(net, pixels, tile=64, half=half)
        )
        # Rounding differs between the two ways, so a pixel within 1e-4 of a threshold may go to either side.
        [counts] = match_counts(whole, trained.predict(image), [0.95])
        assert (counts.fp, counts.fn) == (0, 0)
        monkeypatch.undo()


@pytest.mark.parametrize("flips", [False, True])
def test_windows_find_the_cells_of_the_whole(cell_sample, make_config, flips):
    training = backend.create(make_config(test_flips=flips), [cell_sample], "cpu")
    for step in range(40):
        training.train_step(step)
    trained = training.model()
    image = np.tile(cell_sample.image, (5, 6))[:, :-7]
    lowest, highest = float(image.min()), float(image.max())
    scaled = normalize(image, 0, 100)
    whole = trained.segment(scaled)
    found = segment_large(trained, FedImage(image, lambda part: part, 0, 100), side=64)
    assert highest > lowest
    assert len(whole.scores) > 3
    assert len(found.scores) == len(whole.scores)
    np.testing.assert_allclose(np.sort(found.scores), np.sort(whole.scores), atol=1e-4)
    assert ((found.labels > 0) == (whole.labels > 0)).mean() > 0.999
