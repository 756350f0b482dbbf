"""The network for prediction computes what Cellpose's own does."""

import numpy as np
import pytest
import torch
from cellpose.resnet_torch import CPnet
from unit.trainer_cellpose.cellpose_samples import small_config

from cellsparse_cellpose.inference import FoldedNetwork, StockNetwork, prepare
from cellsparse_cellpose.network import build_network
from cellsparse_cellpose.tiles import run_many


@pytest.fixture
def network() -> CPnet:
    """A network whose normalisations do something, as after a training: factors of both signs among them."""
    made = build_network(small_config())
    noise = torch.Generator().manual_seed(5)
    for name, value in made.state_dict().items():
        if "running" in name:
            value.copy_(torch.rand(value.shape, generator=noise) + 0.1)
        elif value.ndim == 1 and not name.startswith("diam"):
            value.copy_(torch.randn(value.shape, generator=noise))
    return made


def test_folded_weights_compute_the_same(network: CPnet) -> None:
    image = torch.rand(1, 2, 48, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, style, features = network.eval()(image)
        folded = FoldedNetwork(network)
        found = folded.downsample(image)
        for level, one in enumerate(features):
            torch.testing.assert_close(found[level], one, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(folded.style(found[-1]), style)
        torch.testing.assert_close(folded.upsample(style, features), expected, rtol=1e-4, atol=1e-3)


def test_weights_are_those_of_the_moment(network: CPnet) -> None:
    images = np.random.default_rng(0).random((2, 20, 30, 2), np.float32)
    folded = prepare(network)
    assert isinstance(folded, FoldedNetwork)
    before = run_many(folded, images)
    with torch.no_grad():
        for value in network.parameters():
            value.zero_()
    np.testing.assert_array_equal(run_many(folded, images), before)


def test_images_go_one_by_one_or_together(network: CPnet) -> None:
    images = np.random.default_rng(0).random((3, 20, 30, 2), np.float32)
    together = run_many(StockNetwork(network), images)
    assert together.shape == (3, 20, 30, 3)
    np.testing.assert_allclose(run_many(prepare(network), images), together, rtol=1e-4, atol=1e-3)


def test_bfloat16_has_fewer_digits_and_nothing_else(network: CPnet) -> None:
    image = torch.rand(1, 2, 48, 80, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact, half = FoldedNetwork(network), FoldedNetwork(network, half=True)
        expected, found = exact.downsample(image), half.downsample(image)
        for one, two in zip(expected, found, strict=True):
            assert two.dtype == torch.bfloat16
            assert 1e-4 < (one - two.float()).abs().max() / one.abs().max() < 0.05
        style = half.style(found[-1])
        torch.testing.assert_close(style, exact.style(expected[-1]), rtol=0.05, atol=0.01)
        torch.testing.assert_close(half.upsample(style, found), exact.upsample(style, expected), rtol=0.05, atol=0.05)
