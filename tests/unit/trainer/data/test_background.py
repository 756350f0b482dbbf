"""Likely background: what labelled cells tell about the ground, and where they tell nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellsparse_trainer.data.background import fit_background, likely_background

SHAPE = (72, 80)


def scene(seed, *, cell=0.8, ground=0.1, noise=0.03, kept=3, background=False, bright=True):
    """Returns a noisy image with nine discs, its sparse label image with `kept` of them, and the dense one."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(SHAPE)
    dense = np.zeros(SHAPE, np.int32)
    for number in range(9):
        y, x = 12 + 24 * (number // 3), 13 + 27 * (number % 3)
        dense[np.hypot(rows - y, columns - x) < rng.uniform(5, 9)] = 1000 * (number + 1)
    image = np.where(dense > 0, cell, ground) + noise * rng.standard_normal(SHAPE)
    chosen = np.isin(dense, 1000 * (rng.permutation(9)[:kept] + 1))
    label = np.where(chosen, dense, -1).astype(np.int32)
    if background:
        label[:2] = 0
    image = (image if bright else 1 - image).astype(np.float32)
    return image, label, dense


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    kept=st.integers(1, 9),
    background=st.booleans(),
    bright=st.booleans(),
    noise=st.floats(0, 0.08),
)
def test_finds_ground_and_spares_cells(seed, kept, background, bright, noise):
    image, label, dense = scene(seed, kept=kept, background=background, bright=bright, noise=noise)
    before = image.copy(), label.copy()
    found = likely_background(image, label)
    assert (image == before[0]).all()
    assert (label == before[1]).all()
    assert (label[found] == -1).all()
    assert found[(dense == 0) & (label < 0)].mean() > 0.1
    assert found[(dense > 0)].mean() < 0.02


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), background=st.booleans())
def test_dark_cells_are_the_mirror_image_of_bright_ones(seed, background):
    image, label, _ = scene(seed, background=background)
    bright, dark = fit_background(image, label), fit_background(1 - image, label)
    assert (bright.sign, dark.sign) == (1, -1)
    assert dark.limit == pytest.approx(bright.limit - 1, abs=1e-5)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), kept=st.integers(2, 9), background=st.booleans())
def test_says_nothing_where_cells_are_as_bright_as_the_ground(seed, kept, background):
    image, label, _ = scene(seed, cell=0.5, ground=0.5, noise=0.1, kept=kept, background=background)
    assert fit_background(image, label) is None
    assert not likely_background(image, label).any()


@pytest.mark.parametrize("value", [-1, 0, 3])
def test_says_nothing_without_a_labelled_cell_or_without_an_unlabelled_pixel(value):
    image, label, _ = scene(0)
    assert fit_background(image, np.full_like(label, value)) is None
    assert fit_background(image, np.where(label < 0, 0, label)) is None


def test_dim_cells_far_from_a_glowing_labelled_one_are_spared():
    rows, columns = np.indices((64, 96))
    bright, dim = np.hypot(rows - 32, columns - 24) < 9, np.hypot(rows - 32, columns - 74) < 9
    image = 0.05 + 0.3 * np.exp(-((np.hypot(rows - 32, columns - 24) / 14) ** 2)) + 0.6 * bright + 0.1 * dim
    noise = np.random.default_rng(0).normal(0, 0.01, image.shape)
    found = likely_background((image + noise).astype(np.float32), np.where(bright, 1, -1).astype(np.int32))
    assert found.mean() > 0.3
    assert not found[dim].any()


def test_cells_of_very_different_brightness_still_tell_the_ground():
    image, label, dense = scene(1, kept=4)
    numbers = np.unique(label[label > 0])
    image[dense == numbers[0]] *= 0.3
    image[dense == numbers[1]] *= 0.25
    found = likely_background(image, label)
    assert found[dense == 0].mean() > 0.25
    assert not found[dense > 0].any()


def test_stacks_are_taken_as_they_are():
    image, label, dense = scene(2)
    found = likely_background(np.stack([image] * 5), np.stack([label] * 5))
    assert found.shape == (5, *SHAPE)
    assert found[:, dense == 0].mean() > 0.25
    assert not (found & (dense > 0)).any()


def test_a_window_is_judged_as_its_image_is():
    image, label, _ = scene(3)
    ground = fit_background(image, label)
    inner = np.s_[20:60, 20:70]
    same = ground.covers(image)[inner] == ground.covers(image[10:70, 10:80])[10:50, 10:60]
    assert same.all()
