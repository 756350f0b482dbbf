"""The fast sparsifier against the plain reading of its definition, on random label images full of ties and lines."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from unit.sparsifier import reference

from cellsparse_common.imaging import disk_array
from cellsparse_sparsifier import background, cells
from cellsparse_sparsifier.background import Background
from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.sparsify import Settings, sparsify

SIDES = st.integers(1, 14)
SHAPES = st.tuples(SIDES, SIDES)
NUMBERS = st.sampled_from([-1, 0, 0, 1, 2, 3, 4, 5, 9, 700, 2**31 - 1])


@st.composite
def pictures(draw):
    """An image of few grey values, so that means tie, and a label image of blocks, lines and crumbs."""
    height, width = draw(SHAPES)
    label = draw(hnp.arrays(np.int32, (height, width), elements=NUMBERS, fill=st.just(0)))
    for _ in range(draw(st.integers(0, 6))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        label[y : y + draw(st.integers(1, 4)), x : x + draw(st.integers(1, 4))] = draw(NUMBERS)
    channels = draw(st.sampled_from([(), (2,), (3,), (4,)]))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, np.bool_]))
    values = st.integers(0, 1) if dtype is np.bool_ else st.sampled_from([0, 1, 2, 3, 100])
    image = draw(hnp.arrays(np.int64, (height, width, *channels), elements=values)).astype(dtype)
    return image, label


KEEP = {
    "mode": st.sampled_from(list(Mode)),
    "background": st.sampled_from(list(Background)),
    "distance": st.integers(1, 12),
    "seed": st.integers(0, 2**64 - 1),
}


def in_parts(image, label, settings):
    """Sparsify as a large image is: a few rows and runs at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_array, "BAND_BYTES", 100)
        patch.setattr(background, "BAND_BYTES", 100)
        patch.setattr(background, "LARGE_PIXELS", 0)
        patch.setattr(cells, "RUNS_AT_ONCE", 5)
        return sparsify(image, label, settings)


@given(pictures(), st.builds(Settings, k=st.integers(1, 4), **KEEP))
def test_equals_the_plain_definition_pixel_for_pixel(picture, settings):
    image, label = picture
    before = image.copy(), label.copy()
    sparse = sparsify(image, label, settings)
    expected, kept = reference.sparsify(
        image,
        label,
        mode=settings.mode.name,
        count=2 * settings.k,
        rule=settings.background.name,
        distance=settings.distance,
        seed=settings.seed,
    )
    assert sparse.label.dtype == np.int32
    np.testing.assert_array_equal(sparse.label, expected)
    np.testing.assert_array_equal(in_parts(image, label, settings).label, expected)
    assert sparse.kept.tolist() == kept
    assert sparse.candidates == len(reference.candidates(label))
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])


@given(pictures(), st.builds(Settings, k=st.integers(1, 4), **KEEP))
def test_keeps_nothing_that_was_not_there(picture, settings):
    image, label = picture
    sparse = sparsify(image, label, settings)
    kept = np.isin(label, sparse.kept)
    np.testing.assert_array_equal(sparse.label[kept], label[kept])
    assert set(np.unique(sparse.label[~kept])) <= {-1, 0}
    assert (label[sparse.label == 0] == 0).all()
    assert len(sparse.kept) <= min(sparse.candidates, 2 * settings.k)
    if settings.mode is not Mode.MINMAX or sparse.candidates < 2 * settings.k:
        assert len(sparse.kept) == min(sparse.candidates, 2 * settings.k)
    if not len(sparse.kept):
        assert (sparse.label == -1).all()


@given(pictures(), st.builds(Settings, k=st.integers(1, 4), **KEEP), st.integers(1, 2**30))
def test_numbering_decides_nothing_but_ties(picture, settings, step):
    """Numbers with gaps but in the same order select the same cells: only the order of labels counts."""
    image, label = picture
    order = {n: min(i * step + 1, 2**31 - 1 - 10 + i) for i, n in enumerate(np.unique(label[label > 0]).tolist())}
    renumbered = np.array([[order.get(n, n) for n in row] for row in label.tolist()], np.int64)
    sparse = sparsify(image, renumbered, settings)
    assert sparse.kept.tolist() == [order[n] for n in sparsify(image, label, settings).kept.tolist()]


@given(pictures(), st.sampled_from(list(Mode)), st.integers(1, 5))
def test_two_k_and_a_total_of_two_k_are_the_same_for_one_image(picture, mode, k):
    image, label = picture
    by_k = sparsify(image, label, Settings(mode=mode, background=Background.NONE, k=k))
    total = sparsify(image, label, Settings(mode=mode, background=Background.NONE, total_cells=2 * k))
    np.testing.assert_array_equal(by_k.label, total.label)


def grid_of_cells(cells: int) -> tuple[np.ndarray, np.ndarray]:
    """3 x 3 cells in a row, 4 pixels apart, each brighter than the one before."""
    label = np.zeros((5, 4 * cells), np.int32)
    for i in range(cells):
        label[1:4, 4 * i : 4 * i + 3] = i + 1
    return (label * 10).astype(np.uint8), label


def settings(**changes) -> Settings:
    return Settings(**{"mode": Mode.MINMAX, "background": Background.NONE, "k": 1, **changes})


@pytest.mark.parametrize(
    ("mode", "k", "kept"),
    [
        (Mode.MIN, 1, [1, 2]),
        (Mode.MAX, 1, [5, 6]),
        (Mode.MINMAX, 1, [1, 6]),
        (Mode.MINMAX, 2, [1, 2, 5, 6]),
        (Mode.MAX, 99, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_modes(mode, k, kept):
    assert sparsify(*grid_of_cells(6), settings(mode=mode, k=k)).kept.tolist() == kept


@pytest.mark.parametrize(
    ("amount", "kept"),
    [
        ({"total_cells": 3}, [1, 2, 6]),
        ({"total_cells": 1}, [1]),
        ({"total_percent": 50.0}, [1, 2, 6]),
        ({"total_percent": 1e-9}, [1]),
        ({"total_percent": 100.0}, [1, 2, 3, 4, 5, 6]),
        ({"total_cells": 10**9}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_totals_split_with_the_odd_cell_on_the_dark_side(amount, kept):
    assert sparsify(*grid_of_cells(6), settings(k=None, **amount)).kept.tolist() == kept


def test_random_is_decided_by_its_seed():
    picture = grid_of_cells(40)
    kept = [sparsify(*picture, settings(mode=Mode.RANDOM, k=3, seed=seed)).kept.tolist() for seed in (1, 1, 2)]
    assert kept[0] == kept[1] != kept[2]


def test_a_single_row_or_column_has_no_candidate():
    for shape in ((1, 9), (9, 1), (1, 1)):
        sparse = sparsify(np.ones(shape, np.uint8), np.ones(shape, np.int32), settings(background=Background.ALL))
        assert sparse.candidates == 0
        assert (sparse.label == -1).all()


def test_an_image_without_a_pixel_is_left_alone():
    assert sparsify(np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.int32), settings()).label.shape == (0, 5)


def test_means_of_large_integers_are_exact():
    """Sums of 32 bit values pass 2**53 nowhere near a test's size, but float32 sums would already be wrong here."""
    image = np.full((64, 128), 2**32 - 1, np.uint32)
    label = np.ones((64, 128), np.int32)
    label[:, 64:] = 2
    image[0, 127] -= 1
    assert sparsify(image, label, settings(mode=Mode.MINMAX)).kept.tolist() == [1, 2]
    assert sparsify(image, label, settings(k=None, mode=Mode.MIN, total_cells=1)).kept.tolist() == [2]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 12))
@example(1, 1, 12)
def test_dotted_lines_are_never_candidates(dy, dx, dots):
    """Where scikit-image's minor axis length is anything from 0 to 2e-6."""
    label = np.zeros((dots * dy + 1, dots * dx + 1), np.int32)
    label[np.arange(dots) * dy, np.arange(dots) * dx] = 7
    assert sparsify(np.ones(label.shape, np.uint8), label, settings()).candidates == 0


def test_one_pixel_off_a_long_line_makes_a_candidate():
    label = np.zeros((2, 100_000), np.int32)
    label[0] = 1
    assert sparsify(label, label, settings()).candidates == 0
    label[1, 50_000] = 1
    assert sparsify(label, label, settings()).candidates == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_intensities_that_are_no_numbers_are_named(bad):
    image, label = grid_of_cells(3)
    image = image.astype(np.float32)
    image[2, 5] = bad
    with pytest.raises(ValueError, match="cell 2"):
        sparsify(image, label, settings())


@pytest.mark.parametrize(
    ("image", "label"), [((4, 5), (5, 4)), ((4,), (4,)), ((2, 4, 4, 1), (2, 4)), ((9, 9, 9), (9, 9, 8))]
)
def test_shapes_that_do_not_match_are_refused(image, label):
    with pytest.raises(ValueError, match="do not match"):
        sparsify(np.zeros(image, np.uint8), np.zeros(label, np.int32), settings())


@pytest.mark.parametrize(
    "bad",
    [{"k": 0}, {"k": None}, {"total_cells": 3}, {"distance": 0}, {"seed": -1}, {"k": None, "total_percent": np.nan}],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"needed|must be"):
        settings(**bad)
