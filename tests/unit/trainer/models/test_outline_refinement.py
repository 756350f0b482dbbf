import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.models.outline_refinement import (
    LEVELS,
    OutlineLevel,
    export_note,
    fit_level,
    level_to_dict,
    own_level,
    read_level,
    refined,
    without_level,
)


def disc(shape, middle, radius):
    rows, columns = np.indices(shape)
    return np.hypot(rows - middle[0], columns - middle[1]) <= radius


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


TRUE = disc((60, 60), (30, 28), 14)
BRIGHT = np.where(TRUE, 0.8, 0.1).astype(np.float32)


@pytest.mark.parametrize("image", [BRIGHT, 1 - BRIGHT], ids=["bright", "dark"])
@pytest.mark.parametrize("radius", [11, 17])
def test_a_cell_found_too_small_or_too_large_comes_to_its_size(image, radius):
    found = disc(TRUE.shape, (30, 28), radius).astype(np.int32) * 7
    assert overlap(found > 0, TRUE) < 0.7
    result = refined(image, found, 0.5)
    assert set(np.unique(result)) == {0, 7}
    assert overlap(result == 7, TRUE) > 0.97
    assert (found == disc(TRUE.shape, (30, 28), radius) * 7).all(), "the argument is not changed"


@pytest.mark.parametrize("radius", [12, 16])
def test_where_brightness_changes_slowly_the_outline_found_counts_too(radius):
    slow = ndimage.gaussian_filter(BRIGHT, 4)
    shown = slow > slow.min() + 0.5 * (slow.max() - slow.min())
    found = disc(TRUE.shape, (30, 28), radius)
    sizes = [(refined(slow, found.astype(np.int32), 0.5, prior) > 0).sum() for prior in (0, 0.1, 0.3, 1)]
    assert abs(sizes[0] - shown.sum()) < 0.1 * shown.sum()
    steps = np.sign(found.sum() - shown.sum()) * np.diff([*sizes, found.sum()])
    assert (steps > 0).all(), sizes


def test_noise_neither_frays_nor_splits_a_cell():
    noisy = np.clip(BRIGHT + np.random.default_rng(0).normal(0, 0.1, TRUE.shape), 0, 1).astype(np.float32)
    result = refined(noisy, disc(TRUE.shape, (30, 28), 12).astype(np.int32), 0.5)
    assert overlap(result == 1, TRUE) > 0.93
    assert ndimage.label(result)[1] == 1
    assert (ndimage.binary_fill_holes(result) == (result > 0)).all()


def test_a_cell_that_brightness_does_not_show_stays():
    found = disc(TRUE.shape, (30, 28), 12).astype(np.int32)
    flat = np.full(TRUE.shape, 0.4, np.float32)
    assert (refined(flat, found, 0.5) == found).all()
    noise = np.random.default_rng(0).uniform(0, 1, TRUE.shape).astype(np.float32)
    assert (refined(noise, found, 0.5) == found).all()


def test_the_line_between_cells_that_touch_stays():
    found = disc(TRUE.shape, (30, 28), 12).astype(np.int32)
    found[:, 28:] *= 2
    result = refined(BRIGHT, found, 0.5)
    assert overlap(result > 0, TRUE) > 0.97
    assert (result[20:40, :28] != 2).all()
    assert (result[20:40, 28:] != 1).all()


def test_nothing_found_is_nothing():
    assert not refined(BRIGHT, np.zeros(TRUE.shape, np.int32), 0.5).any()


def test_a_window_around_a_cell_gives_what_the_whole_image_gives():
    rng = np.random.default_rng(1)
    found = np.zeros((160, 160), np.int32)
    for number in range(1, 30):
        found[disc(found.shape, rng.uniform(0, 160, 2), rng.uniform(3, 12))] = number
    image = ndimage.gaussian_filter(np.where(found > 0, 0.8, 0.1) + rng.normal(0, 0.1, found.shape), 1)
    image = np.clip(image, 0, 1).astype(np.float32)
    whole = refined(image, found, 0.4)
    window = (slice(24, 136), slice(32, 144))
    part = refined(image[window], found[window], 0.4)
    middle = (slice(36, -36), slice(36, -36))
    assert (part[middle] == whole[window][middle]).all()
    assert (whole != found).any()


@given(
    arrays.arrays(np.int32, (12, 14), elements=st.integers(0, 4)),
    arrays.arrays(np.float32, (12, 14), elements=st.floats(0, 1, width=32)),
    st.sampled_from(LEVELS),
)
def test_no_cell_vanishes_and_none_appears(labels, image, level):
    before = labels.copy()
    result = refined(image, labels, level)
    assert (labels == before).all()
    assert result.dtype == np.int32
    assert set(np.unique(result)) - {0} == set(np.unique(labels)) - {0}


def drawn_at(level, cells, seed=0):
    """Return a sample whose cells are drawn at a level of their blurred brightness, and cells found at a wrong size."""
    rng = np.random.default_rng(seed)
    shape = (64, 48 * cells)
    sharp, label = np.zeros(shape), np.full(shape, -1, np.int32)
    near, found = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for number in range(1, cells + 1):
        middle = (32 + rng.uniform(-3, 3), 48 * number - 24 + rng.uniform(-3, 3))
        sharp[disc(shape, middle, 10)] = 1
        near[disc(shape, middle, 12.5)] = number
        found[disc(shape, middle, 12 if number % 2 else 9)] = number
    image = ndimage.gaussian_filter(sharp, 2.5)
    drawn = (image >= level * image.max()) & (near > 0)
    label[drawn] = near[drawn] + 100
    return Sample(name="drawn", image=(0.1 + 0.8 * image).astype(np.float32), label=label), found


@pytest.mark.parametrize("level", [0.3, 0.5])
def test_the_level_at_which_people_drew_is_found(level):
    sample, found = drawn_at(level, 6)
    fitted = fit_level([sample], lambda _: found)
    assert fitted.level == pytest.approx(level, abs=0.051)
    assert fitted.own == own_level(sample.gray, found)[0]


def test_a_network_counts_as_far_as_its_outlines_are_better_than_those_of_the_image():
    sample, found = drawn_at(0.4, 20)
    assert fit_level([sample], lambda _: found).prior == 0, "brightness shows exactly how they were drawn"
    rng = np.random.default_rng(3)
    uneven = ndimage.gaussian_filter(rng.normal(0, 1, sample.image.shape), 2)
    image = (sample.image + 0.15 * uneven / uneven.std()).astype(np.float32)
    near = np.where(sample.label > 0, sample.label - 100, 0).astype(np.int32)
    smaller = np.where(ndimage.binary_erosion(near > 0), near, 0).astype(np.int32)
    rough = Sample(name="rough", image=image, label=sample.label)
    assert fit_level([rough], lambda _: smaller).prior > 0


@pytest.mark.parametrize("level", [0.25, 0.4, 0.6])
@pytest.mark.parametrize("dark", [False, True])
def test_the_level_at_which_outlines_were_drawn_is_seen(level, dark):
    sample, _ = drawn_at(level, 6)
    cells = np.where(sample.label > 0, sample.label - 100, 0).astype(np.int32)
    image = 1 - sample.gray if dark else sample.gray
    own, count = own_level(image, cells)
    assert own == pytest.approx(level, abs=0.07)
    assert count == 6
    assert own_level(np.full_like(image, 0.5), cells) is None
    assert own_level(image, np.zeros_like(cells)) is None


def test_an_image_that_is_drawn_narrower_is_refined_narrower():
    wide, narrow = (drawn_at(level, 40)[0] for level in (0.3, 0.5))
    cells = [np.where(each.label > 0, each.label - 100, 0).astype(np.int32) for each in (wide, narrow)]
    usual = OutlineLevel(level=0.4, own=0.35)
    for sample, drawn in zip((wide, narrow), cells, strict=True):
        own, _ = own_level(sample.gray, drawn)
        assert usual.of(sample.gray, drawn) == pytest.approx(0.4 + 40 / 44 * (own - 0.35))
    assert usual.of(wide.gray, np.zeros_like(cells[0])) == 0.4
    assert OutlineLevel(level=0.4).of(narrow.gray, cells[1]) == 0.4
    assert OutlineLevel(level=0.7, own=0.1).of(narrow.gray, cells[1]) == 0.7, "bounded"


def test_there_is_no_level_where_none_helps_or_too_few_cells_tell():
    sample, found = drawn_at(0.4, 6)
    perfect = np.where(sample.label > 0, sample.label - 100, 0).astype(np.int32)
    assert fit_level([sample], lambda _: perfect) is None
    assert fit_level([sample], lambda _: np.zeros_like(found)) is None
    few, found_few = drawn_at(0.4, 2)
    assert fit_level([few], lambda _: found_few) is None
    assert fit_level([], lambda _: found) is None


@pytest.mark.parametrize("value", ["0.4", -0.1, 1.5, float("nan"), [0.4]])
def test_a_damaged_level_is_refused(value):
    with pytest.raises(ValueError, match=r"^outline_level is .*; allowed: a number from 0 to 1, or none"):
        read_level({"outline_level": value})
    with pytest.raises(ValueError, match=r"own_outline_level is .*; allowed: a number from 0 to 1, or none"):
        read_level({"outline_level": 0.4, "own_outline_level": value})
    with pytest.raises(ValueError, match=r"outline_prior is .*; allowed: a number from 0 to 1, or none"):
        read_level({"outline_level": 0.4, "outline_prior": value})


@pytest.mark.parametrize("level", [None, OutlineLevel(level=0.35), OutlineLevel(level=0.35, own=0.41, prior=0.2)])
def test_a_level_is_kept_among_what_a_model_was_fitted_with(level):
    fitted = {"diameter": 12.0, **level_to_dict(level)}
    assert read_level(fitted) == level
    assert without_level(fitted) == {"diameter": 12.0}
    assert ("level 0.35" in export_note(level)) == (level is not None)


def test_a_model_of_a_version_without_a_prior_refines_as_it_did():
    assert read_level({"outline_level": 0.4, "own_outline_level": 0.3}) == OutlineLevel(level=0.4, own=0.3, prior=0.0)
