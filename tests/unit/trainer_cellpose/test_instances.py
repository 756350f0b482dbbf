"""Stacks through a network for planes: cells of planes become cells of the stack."""

import numpy as np
import pytest
from cellpose import utils
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from unit.trainer_cellpose.cellpose_samples import small_config

from cellsparse_cellpose import model, tiles
from cellsparse_cellpose.config import Config, resolve
from cellsparse_cellpose.instances import tidy
from cellsparse_cellpose.network import build_network
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_torch.flows.planes import join_planes


@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.25, 0.6, 1.0]))
@settings(max_examples=40)
def test_equals_stock_cellpose_where_no_plane_is_empty(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((5, 24, 24)), (0.7, 1.5, 1.5))
    planes = [ndimage.label(plane > np.quantile(plane, 0.7))[0].astype(np.int32) for plane in noise]
    stock = utils.stitch3D(np.stack(planes).copy(), stitch_threshold=threshold)
    ours = join_planes(planes, noise.shape, threshold)
    for plane, joined in zip(planes, ours, strict=True):  # no cell of a plane is lost, and no two become one
        pairs = np.unique(np.stack([plane, joined]).reshape(2, -1), axis=1)
        assert len(pairs.T) == plane.max() + 1 == len(np.unique(pairs[1]))
    if all(len(np.unique(one)) == len(np.unique(two)) for one, two in zip(planes, stock, strict=True)):  # no ties there
        np.testing.assert_array_equal(ours, stock)


def test_cells_beyond_an_empty_plane_are_others() -> None:
    """Stock Cellpose gives the first cell after empty planes the number of the first cell again."""
    planes = np.zeros((4, 6, 6), np.int32)
    planes[0, 1:3, 1:3] = planes[2, 1:3, 1:3] = planes[3, 1:3, 1:3] = 1
    assert len(np.unique(utils.stitch3D(planes.copy()))) == 2
    assert join_planes(planes, planes.shape, 0.25)[:, 1, 1].tolist() == [1, 0, 2, 2]


def test_the_larger_share_wins() -> None:
    planes = np.zeros((2, 4, 10), np.int32)
    planes[0, :, :8] = 1
    planes[1, :, :3] = 1
    planes[1, :, 3:8] = 2
    assert join_planes(planes, planes.shape, 0.25)[1, 0].tolist() == [2, 2, 2, 1, 1, 1, 1, 1, 0, 0]
    assert join_planes(planes, planes.shape, 0.7)[1, 0].tolist() == [2, 2, 2, 3, 3, 3, 3, 3, 0, 0]


def small_model(**changes: object) -> model.CellposeModel:
    config = small_config(cellprob_threshold=-6.0, **changes)
    return model.CellposeModel(build_network(config), config, 12.0)


def test_a_stack_is_its_planes_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(1).random((11, 30, 41)), 2).astype(np.float32)
    network = small_model(min_size=0)
    label = network.segment_stack(image).labels
    assert label.shape == image.shape
    assert np.unique(label).tolist() == list(range(label.max() + 1))
    alone = [network.predict(plane) for plane in image]
    np.testing.assert_array_equal(label, join_planes(alone, image.shape, 0.25))
    logits = np.stack([network._outputs(plane[np.newaxis], 1.0)[0, 2] for plane in image])
    means = [(1 / (1 + np.exp(-logits[label == n]))).mean() for n in range(1, label.max() + 1)]
    np.testing.assert_allclose(network.segment_stack(image).scores, means, atol=1e-4)
    monkeypatch.setattr(tiles, "MOST_IMAGES", 1)
    np.testing.assert_array_equal(label, network.segment_stack(image).labels)


def test_small_cells_are_counted_over_all_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = np.zeros((20, 20), np.int32)
    plane[2:5, 2:5] = 1
    monkeypatch.setattr(model.CellposeModel, "_cells", lambda self, output, scale: tidy(plane))
    stack = np.zeros((3, 20, 20), np.float32)
    assert small_model(min_size=27).segment_stack(stack).labels.max() == 1
    assert small_model(min_size=28).segment_stack(stack).labels.max() == 0


def test_a_batch_of_planes_is_never_more_than_a_tile() -> None:
    assert tiles.images_per_batch(64, 64) == tiles.MOST_IMAGES
    assert tiles.images_per_batch(tiles.TILE // 2 - 16, tiles.TILE // 2 - 16) == 4
    assert tiles.images_per_batch(5000, 5000) == 1


def test_settings_for_stacks() -> None:
    settings = trainer_pb2.TrainingSettings()
    assert resolve(settings, 3, stacks=True).plan.crop_depth is None
    assert resolve(settings, 3).stitch_threshold == 0.25
    assert (resolve(settings, 3).rescale, resolve(settings, 3, stacks=True).rescale) == ("image", "dataset")
    settings.cellpose.stitch_threshold = 0.5
    assert (resolve(settings, 3).plan.copy_paste, resolve(settings, 3, stacks=True).plan.copy_paste) == (1, 0)
    with pytest.raises(ValueError, match="copy_paste is 2 with stacks; allowed: 0"):
        resolve(trainer_pb2.TrainingSettings(copy_paste=2, cellpose={}), 3, stacks=True)
    config = resolve(settings, 3, stacks=True)
    assert Config.from_json(config.to_json()).stitch_threshold == 0.5
    settings.crop_depth = 4
    with pytest.raises(ValueError, match="crop_depth is 4; allowed: not set"):
        resolve(settings, 3, stacks=True)
    for bad in (0.0, 1.5):
        with pytest.raises(ValueError, match="stitch_threshold"):
            small_config(stitch_threshold=bad)
