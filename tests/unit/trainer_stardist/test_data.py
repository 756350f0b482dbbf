import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from stardist.models.model2d import StarDistData2D

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_stardist.config import resolve
from cellsparse_stardist.crops import Crop, augment, cut, mark_likely_background, onto_grid, rescaled
from cellsparse_stardist.data import Sampler, index_sample
from cellsparse_stardist.targets import OUTSIDE, Stars, make_targets
from cellsparse_trainer.data.background import LIKELY
from cellsparse_trainer.data.samples import Sample


def stock_targets(image, label, grid, n_rays):
    data = StarDistData2D(
        [image], [label], batch_size=1, n_rays=n_rays, length=1, patch_size=label.shape, grid=(grid, grid)
    )
    _, (prob, dist_and_mask) = data[0]
    return prob[0, ..., 0], dist_and_mask[0, ..., :-1], dist_and_mask[0, ..., -1]


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_targets_of_a_whole_image_are_stardists(dense_sample, sparse_samples, grid):
    square = sparse_samples[0].label[:64, :64]
    for label in (dense_sample.label, square):
        prob, dist = make_targets(label, (0, 0), Stars(grid=(grid, grid), n_rays=16))
        # Stock code numbers find_objects by label value; ours renumbers first.
        stock_prob, stock_dist, stock_mask = stock_targets(dense_sample.image, label, grid, 16)
        np.testing.assert_array_equal(prob, stock_prob)
        np.testing.assert_array_equal(dist, stock_dist)
        np.testing.assert_array_equal(np.maximum(prob, 0), stock_mask)


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_a_cell_cut_by_the_crop_keeps_its_real_edge(dense_sample, grid):
    label = dense_sample.label
    index = index_sample(dense_sample.image, label)
    stars = Stars(grid=(grid, grid), n_rays=32)
    whole_prob, whole_dist = make_targets(label, (0, 0), stars)
    for corner in [(0, 0), (8, 12), (32, 32), (20, 4)]:
        margin = index.overhang(corner, (32, 32), stars.grid)
        crop = cut(dense_sample.image, label, corner, (32, 32), margin)
        prob, dist = make_targets(crop.label, crop.margin, stars)
        window = tuple(slice(c // grid, (c + 32) // grid) for c in corner)
        np.testing.assert_array_equal(prob, whole_prob[window])
        np.testing.assert_array_equal(dist, whole_dist[window])


@given(st.integers(5, 40), st.integers(5, 40), st.integers(0, 2**32), st.sampled_from([1, 2, 4]))
@limits(max_examples=40)
def test_padded_pixels_carry_no_supervision(height, width, seed, grid):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, (height, width)).astype(np.int32)
    image = rng.random((height, width), np.float32)
    corner = (min(0, (height - 32) // 2), min(0, (width - 32) // 2))
    margin = index_sample(image, label).overhang(corner, (32, 32), (grid, grid))
    crop = augment(cut(image, label, corner, (32, 32), margin), rng)
    prob, dist = make_targets(crop.label, crop.margin, Stars(grid=(grid, grid), n_rays=8))
    middle = slice(crop.margin[0], crop.margin[0] + 32)
    known = crop.label[middle, middle][::grid, ::grid]
    assert crop.image.shape == (32, 32)
    assert np.isfinite(crop.image).all()
    assert ((prob >= 0) == (known >= 0)).all()
    assert (known == OUTSIDE).sum() >= known.size - (-(-min(height, 32) // grid)) * (-(-min(width, 32) // grid))
    assert (dist[known <= 0] == 0).all()


@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 2**32),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 1.0]),
)
@limits(max_examples=60)
def test_every_crop_holds_a_labelled_pixel(height, width, seed, anchor_cells, jitter, scale_range):
    rng = np.random.default_rng(seed)
    label = np.full((height, width), -1, np.int32)
    for value in (0, 70_000, 4):
        label[rng.integers(height), rng.integers(width)] = value
    index = index_sample(np.zeros(label.shape, np.float32), label)
    config = _config(anchor_cells=anchor_cells, jitter=jitter, scale_range=scale_range)
    sampler = Sampler([Sample(name="one", image=np.zeros(label.shape, np.float32), label=label)], config)
    for position in range(4):
        crop = sampler._crop(position, rng) if index.labelled else None
        assert crop is None or crop.label.shape == tuple(32 + 2 * margin for margin in crop.margin)
        middle = slice(crop.margin[0], crop.margin[0] + 32)
        assert (crop.label[middle, middle] >= 0).any()


def _config(**changes):
    settings = trainer_pb2.TrainingSettings(crop_size=32, stardist={"unet_depth": 1})
    return dataclasses.replace(resolve(settings, 1), **changes)


def test_a_batch_is_a_function_of_seed_and_step(tiny, sparse_samples):
    one, two = Sampler(sparse_samples, tiny()), Sampler(sparse_samples, tiny())
    for step in (0, 3):
        for name in ("image", "prob", "dist"):
            np.testing.assert_array_equal(getattr(one.batch(step), name), getattr(two.batch(step), name))
    assert (one.batch(3).image != one.batch(4).image).any()
    assert (one.batch(3).image != Sampler(sparse_samples, tiny(seed=8)).batch(3).image).any()


def test_batches_have_the_networks_shapes_and_leave_the_labels_alone(tiny, sparse_samples):
    before = [sample.label.copy() for sample in sparse_samples]
    batch = Sampler(sparse_samples, tiny()).batch(0)
    assert batch.image.shape == (2, 32, 32, 1)
    assert batch.prob.shape == (2, 16, 16, 1)
    assert batch.dist.shape == (2, 16, 16, 8)
    assert {batch.image.dtype, batch.prob.dtype, batch.dist.dtype} == {np.dtype(np.float32)}
    for label, sample in zip(before, sparse_samples, strict=True):
        np.testing.assert_array_equal(label, sample.label)


def test_each_pass_visits_every_cell_or_every_image_once(tiny, sparse_samples):
    sampler = Sampler(sparse_samples, tiny())
    passes = [[sampler.anchor(turn * sampler.cells + i) for i in range(sampler.cells)] for turn in range(3)]
    assert sampler.cells == sum(len(np.unique(sample.label[sample.label > 0])) for sample in sparse_samples)
    assert all(len(set(each)) == sampler.cells for each in passes)
    assert passes[0] != passes[1]
    images = Sampler(sparse_samples, tiny(anchor_cells=False))
    assert {images.anchor(0), images.anchor(1)} == {(0, -1), (1, -1)}


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 100), (31, 33)])
def test_images_smaller_than_the_crop_train(tiny, shape):
    label = np.zeros(shape, np.int32)
    label[:, : shape[1] // 2 + 1] = 5
    batch = Sampler([Sample(name="small", image=np.full(shape, 0.5, np.float32), label=label)], tiny()).batch(0)
    assert batch.image.shape == (2, 32, 32, 1)
    assert np.isfinite(batch.image).all()
    # An image of one pixel may lie off the grid; else something is supervised.
    assert (batch.prob >= 0).any() or min(shape) == 1


def test_index_finds_cells_and_background():
    label = np.full((6, 7), -1, np.int32)
    label[1:3, 2:5] = 2_000_000_000
    label[4, 6] = 3
    label[5, :2] = 0
    index = index_sample(np.zeros(label.shape, np.float32), label)
    assert index.cells.tolist() == [[3, 4, 6, 5, 7], [2_000_000_000, 1, 2, 3, 5]]
    assert index.background.tolist() == [0, 0, 0, 0, 0, 2]
    rng = np.random.default_rng(0)
    assert {index.draw(label, -1, 1.0, rng) for _ in range(40)} == {(5, 0), (5, 1)}
    assert index.draw(label, 0, 0.0, rng) == (4, 6)
    assert not index_sample(np.zeros((3, 3), np.float32), np.full((3, 3), -1, np.int32)).labelled


def test_dark_unlabelled_pixels_count_as_background():
    image = np.full((32, 32), 0.5, np.float32)
    image[:, :10] = 0.1
    image[:, 22:] = 0.9
    label = np.full((32, 32), -1, np.int32)
    label[:4, 4:14] = 0
    label[:, 26:] = 1
    ground = index_sample(image, label).background_model
    assert ground is not None
    assert 0.1 < ground.limit < 0.9
    crop = cut(image, label, (-2, 0), (32, 32), (4, 4))
    rng = np.random.default_rng(0)
    whole = mark_likely_background(crop, ground, 1.0, rng).label
    changed = np.argwhere(whole != crop.label) - 4
    assert (whole[whole != crop.label] == LIKELY).all()
    assert (crop.label[whole != crop.label] == -1).all()
    assert len(changed) > 100
    assert changed[:, 1].max() < 16
    assert changed[:, 0].min() >= 2
    tenth = (mark_likely_background(crop, ground, 0.1, rng).label != crop.label).sum()
    assert 0 < tenth < 0.2 * len(changed)
    assert mark_likely_background(crop, ground, 0.0, rng) is crop


def test_nothing_is_assumed_where_cells_are_as_bright_as_the_ground():
    image = np.random.default_rng(0).random((20, 20), np.float32)
    label = np.full((20, 20), -1, np.int32)
    label[3:9, 3:9] = 1
    assert index_sample(image, label).background_model is None
    label[12] = 0
    assert index_sample(image, label).background_model is None
    label[label < 0] = 0
    assert index_sample(image, label).background_model is None  # nothing left to assume


@pytest.mark.parametrize("bright", [True, False])
def test_ground_is_assumed_without_labelled_background(bright, tiny):
    image = np.full((40, 40), 0.1, np.float32)
    image[10:20, 10:20] = image[26:36, 26:36] = 0.9
    image = image if bright else 1 - image
    label = np.full((40, 40), -1, np.int32)
    label[10:20, 10:20] = 1
    batch = Sampler([Sample(name="a", image=image, label=label)], tiny(likely_background=1.0)).batch(0)
    assert (batch.prob == 0).mean() > 0.2
    without = tiny(likely_background=0.0, outline_rim=0.0)
    batch = Sampler([Sample(name="a", image=image, label=label)], without).batch(0)
    assert not (batch.prob == 0).any()


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32), st.sampled_from([1, 2, 4]), st.booleans())
@limits(max_examples=60)
def test_one_labelled_pixel_is_supervised_wherever_it_lies_on_the_grid(height, width, seed, grid, anchor_cells):
    rng = np.random.default_rng(seed)
    label = np.full((height, width), -1, np.int32)
    label[rng.integers(height), rng.integers(width)] = 3
    sample = Sample(name="one", image=rng.random(label.shape, np.float32), label=label)
    config = _config(anchor_cells=anchor_cells, grid=grid, n_rays=8, scale_range=0.0)
    batch = Sampler([sample], config).batch(seed % 1000)
    assert ((batch.prob > 0).sum(axis=(1, 2, 3)) == 1).all()
    assert np.isfinite(batch.image).all()


def test_a_crop_with_supervision_is_not_moved(dense_sample):
    crop = cut(dense_sample.image, dense_sample.label, (3, 5), (32, 32), (4, 4))
    assert onto_grid(crop, (4, 4)) is crop


def test_a_crop_moved_onto_the_grid_is_the_same_image_elsewhere():
    label = np.full((40, 40), -1, np.int32)
    label[15, 17] = 6
    image = np.random.default_rng(0).random(label.shape, np.float32)
    crop = onto_grid(cut(image, label, (4, 4), (32, 32), (4, 4)), (4, 4))
    assert crop.label.shape == (40, 40)
    np.testing.assert_array_equal(crop.image[:29, :31], image[7:36, 5:36])
    np.testing.assert_array_equal(crop.label[:37, :39], label[3:40, 1:40])
    assert crop.label[12, 16] == 6
    assert (crop.label[37:] == OUTSIDE).all()


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_a_scaled_crop_is_the_same_scene_at_another_size(factor):
    """A disk in the middle stays there; its radius, its rays and a slope of intensity change by the factor."""
    size, wide = (64, 64), round(64 / factor)
    rows, columns = np.indices((wide + 16, wide + 16)) - (wide + 15) / 2
    label = np.where(np.hypot(rows, columns) < 10, 7, 0).astype(np.int32)
    slope = (0.01 * columns).astype(np.float32)[8:-8, 8:-8]
    crop = rescaled(Crop(image=slope, label=label, margin=(8, 8)), factor, size, (2, 2))
    margin = crop.margin[0]
    assert crop.image.shape == size
    assert crop.image.dtype == np.float32
    assert crop.label.shape == (64 + 2 * margin, 64 + 2 * margin)
    assert margin % 2 == 0
    assert margin >= 8 * factor
    assert (crop.label == 7).sum() == pytest.approx((label == 7).sum() * factor**2, rel=0.06)
    np.testing.assert_allclose(np.diff(crop.image[:, 2:-2], axis=1), 0.01 / factor, rtol=1e-3)
    _, dist = make_targets(crop.label, crop.margin, Stars(grid=(2, 2), n_rays=8))
    assert dist[16, 16].mean() == pytest.approx(10 * factor, abs=1)


def test_a_scaled_crop_ends_where_the_image_ends():
    label = np.full((48, 48), 0, np.int32)
    label[:12] = OUTSIDE
    crop = rescaled(Crop(image=np.zeros((40, 40), np.float32), label=label, margin=(4, 4)), 0.8, (32, 32), (2, 2))
    assert crop.margin == (4, 4)
    assert (crop.label == OUTSIDE).all(axis=1).tolist() == [True] * 10 + [False] * 29 + [True]
    assert not (crop.label[10:-1, 1:-1] == OUTSIDE).any()


def test_just_outside_an_outline_is_no_cell(tiny):
    label = np.full((32, 32), -1, np.int32)
    label[10:20, 10:20] = 3
    label[10:20, 20:24] = 4
    sample = Sample(name="one", image=np.full(label.shape, 0.5, np.float32), label=label)
    known = {}
    for rim in (0.0, 2.0):
        config = tiny(outline_rim=rim, scale_range=0.0, likely_background=0.0, grid=1)
        prob = Sampler([sample], config).batch(0).prob[0, ..., 0]
        known[rim] = (int((prob > 0).sum()), int((prob == 0).sum()))
    assert known[0.0] == (140, 0)
    assert known[2.0] == (140, 2 * 2 * (14 + 10) + 4)  # two pixels on each side, one at each corner
