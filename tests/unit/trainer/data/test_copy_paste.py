"""Copies of labelled cells beside labelled cells: what they cover, and that they come out the same every time."""

import dataclasses
import pickle

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import ellipse

from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.data.copy_paste import GAPS, PastedSamples, augmented, with_copies
from cellsparse_trainer.data.samples import Sample

SIZE = 96
PLAN = Plan(
    steps=1,
    batch_size=1,
    crop_size=32,
    learning_rate=0.1,
    weight_decay=0.0,
    lower_percentile=1.0,
    upper_percentile=99.0,
    channel=None,
    validate_every=1,
    checkpoint_every=1,
    seed=0,
    device="cpu",
)


def sample(*middles: tuple[int, int], channels: int = 0, dark: bool = False, seed: int = 0) -> Sample:
    """Return cells of 13 x 9 pixels on noise, one in two of them labelled."""
    rng = np.random.default_rng(seed)
    image = 0.1 + 0.01 * rng.standard_normal((SIZE, SIZE))
    label = np.full((SIZE, SIZE), -1, np.int32)
    for number, (y, x) in enumerate(middles, start=1):
        rows, columns = ellipse(y, x, 6.5, 4.5, shape=image.shape)
        image[rows, columns] += 0.8
        label[rows, columns] = 5 * number
    image = ndimage.gaussian_filter(image, 0.7)
    image = (1 - image if dark else image).astype(np.float32)
    if channels:
        image = np.stack([image * (1 + channel) / channels for channel in range(channels)], axis=-1)
    return Sample(name="cells", image=image, label=label)


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("dark", [False, True])
def test_copies_touch_cells_and_cover_none(channels: int, dark: bool) -> None:
    before = sample((30, 30), (60, 62), channels=channels, dark=dark)
    after = with_copies(before, 2, np.random.default_rng(3))
    numbers = set(np.unique(after.label)) - {-1}
    assert {5, 10} < numbers
    assert len(numbers) == 6
    for number in (5, 10):
        np.testing.assert_array_equal(after.label == number, before.label == number)
    others = np.where(np.isin(after.label, [5, 10]), after.label, 0)
    for copy in numbers - {5, 10}:
        grown = ndimage.binary_dilation(after.label == copy, np.ones((3, 3)), iterations=1 + max(GAPS))
        assert others[grown].any()
        assert (after.label == copy).sum() == (before.label == 5).sum()
    assert after.image.shape == before.image.shape
    assert after.image.dtype == np.float32


@pytest.mark.parametrize("dark", [False, True])
def test_a_copy_looks_like_its_cell(dark: bool) -> None:
    before = sample((40, 40), dark=dark)
    after = with_copies(before, 1, np.random.default_rng(0))
    copy = ndimage.binary_erosion(after.label == 6, iterations=2)
    cell = ndimage.binary_erosion(before.label == 5, iterations=2)
    assert after.image[copy].mean() == pytest.approx(before.image[cell].mean(), abs=0.03)
    far = ndimage.distance_transform_edt(after.label != 6) > 5
    np.testing.assert_array_equal(after.image[far], before.image[far])


def test_a_copy_replaces_what_it_covers() -> None:
    before = sample((48, 48))
    bright = dataclasses.replace(before, image=np.where(before.label < 0, np.float32(0.5), before.image))
    bright = dataclasses.replace(
        bright,
        image=np.where(
            ndimage.binary_dilation(before.label > 0, iterations=5) & (before.label < 0), np.float32(0.1), bright.image
        ),
    )
    after = with_copies(bright, 1, np.random.default_rng(1))
    copy = ndimage.binary_erosion(after.label == 6, iterations=3)
    cell = ndimage.binary_erosion(before.label == 5, iterations=3)
    assert after.image[copy].mean() == pytest.approx(before.image[cell].mean(), abs=0.03)


def test_cells_at_the_edge_are_not_copied() -> None:
    cut = sample((3, 40))
    assert with_copies(cut, 2, np.random.default_rng(0)) is cut
    both = with_copies(sample((3, 40), (50, 50)), 2, np.random.default_rng(0))
    whole = (both.label == 10).sum()
    for number in set(np.unique(both.label)) - {-1, 5, 10}:
        assert 0.9 * whole <= (both.label == number).sum() <= whole


def test_copies_find_numbers_where_the_largest_is_taken() -> None:
    before = sample((30, 30), (60, 62))
    largest = np.iinfo(np.int32).max
    taken = dataclasses.replace(before, label=np.select([before.label == 5, before.label == 10], [2, largest], -1))
    after = with_copies(dataclasses.replace(taken, label=taken.label.astype(np.int32)), 1, np.random.default_rng(3))
    assert set(np.unique(after.label)) == {-1, 1, 2, 3, largest}


def test_no_cell_no_copy() -> None:
    nothing = dataclasses.replace(sample(), label=np.zeros((SIZE, SIZE), np.int32))
    assert with_copies(nothing, 2, np.random.default_rng(0)) is nothing


def test_samples_come_out_the_same_every_time() -> None:
    given = [sample((30, 30), seed=seed) for seed in range(3)]
    found = PastedSamples(given, 2, seed=7)
    assert len(found) == 6
    assert found[0] is given[0]
    assert found.threads is None
    again = pickle.loads(pickle.dumps(PastedSamples(given, 2, seed=7, cache_bytes=0)))  # noqa: S301 - our own
    for index in (5, 3, 4, -1):
        np.testing.assert_array_equal(found[index].label, again[index].label)
        np.testing.assert_array_equal(found[index].image, again[index].image)
    assert (found[3].label != PastedSamples(given, 2, seed=8)[3].label).any()
    assert [each.name for each in found[2:4]] == ["cells", "cells with copies"]


def test_a_plan_without_copies_leaves_samples_alone() -> None:
    given = [sample((30, 30))]
    assert augmented(given, PLAN) is given
    assert len(augmented(given, dataclasses.replace(PLAN, copy_paste=1))) == 2


@pytest.mark.parametrize(("copies", "depth"), [(9, None), (-1, None), (1, 16)])
def test_plans_refuse(copies: int, depth: int | None) -> None:
    with pytest.raises(ValueError, match=f"copy_paste is {copies}.*; allowed: 0"):
        dataclasses.replace(PLAN, copy_paste=copies, crop_depth=depth)
