"""Large images: tiled, Cellpose's network gives what it gives on the whole."""

import numpy as np
import pytest
import torch
from cellpose.resnet_torch import CPnet
from unit.trainer_cellpose.cellpose_samples import disc_sample, small_config

from cellsparse_cellpose import model, tiles
from cellsparse_cellpose.inference import InferenceNetwork, prepare
from cellsparse_cellpose.network import build_network
from cellsparse_cellpose.targets import make_targets


@pytest.fixture
def network() -> CPnet:
    """A network whose statistics are not those it starts with."""
    made = build_network(small_config())
    noise = torch.Generator().manual_seed(5)
    for name, value in made.state_dict().items():
        if "running" in name:
            value.copy_(torch.rand(value.shape, generator=noise) + 0.1)
    return made


def planes(shape: tuple[int, int]) -> np.ndarray:
    """Noise that brightens from left to right: the styles of tiles differ."""
    image = np.random.default_rng(0).random(shape, np.float32) * np.linspace(0.1, 1, shape[1], dtype=np.float32)
    return np.stack([image, np.zeros_like(image)], axis=-1)


@pytest.mark.parametrize(
    ("shape", "half", "tolerance"),
    [((300, 330), False, 1e-4), ((90, 700), False, 1e-4), ((470, 1), False, 1e-4), ((90, 300), True, 0.02)],
)
def test_tiles_equal_the_whole(network: CPnet, shape: tuple[int, int], half: bool, tolerance: float) -> None:
    image = planes(shape)
    whole = tiles.run(prepare(network, half=half), image)
    found = tiles.run(prepare(network, half=half), image, tile=96)
    assert found.shape == whole.shape == (*shape, 3)
    scale = np.abs(whole).max()
    assert whole.std() > 1e-3 * scale
    np.testing.assert_allclose(found, whole, atol=tolerance * max(1, scale))


def test_labels_are_the_same(network: CPnet, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = disc_sample()
    image = np.tile(sample.image, (3, 3))
    label = np.tile(np.maximum(sample.label, 0), (3, 3))
    label[label > 0] += 10 * np.repeat(np.repeat(np.arange(9).reshape(3, 3), 60, 0), 70, 1)[label > 0]
    targets = make_targets(label.astype(np.int32))
    perfect = np.zeros((label.size, 3), np.float32)
    perfect[:, 2] = np.where(label.ravel() > 0, 1, -1)
    perfect[targets.inside, :2] = 5 * targets.flow.T
    size = np.abs(tiles.run(prepare(network), np.stack([image, np.zeros_like(image)], axis=-1))).max(axis=(0, 1))

    def disturbed(tile: int) -> np.ndarray:
        """Labels from perfect flows that the network's own output disturbs."""

        def run(network: InferenceNetwork, planes: np.ndarray) -> np.ndarray:
            return perfect.reshape(*label.shape, 3) + 1.5 * tiles.run(network, planes, tile=tile) / size

        monkeypatch.setattr(model, "run", run)
        config = small_config(flow_threshold=0.0)
        return model.CellposeModel(network, config, config.mean_diameter).predict(image)

    whole = disturbed(tiles.TILE)
    assert whole.max() > 9
    assert (whole > 0).sum() != (label > 0).sum()
    np.testing.assert_array_equal(disturbed(96), whole)
