"""The rim of drawn outlines: where it lies, whose it is, and where it may be a neighbour that touches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellsparse_trainer.data.background import Surroundings, likely_background
from cellsparse_trainer.data.outline_rim import as_bright_as_cell, outline_rim

SHAPE = (60, 70)


def disc(y, x, radius=8):
    rows, columns = np.indices(SHAPE)
    return np.hypot(rows - y, columns - x) < radius


def touching(*, bright=True, seed=0):
    """Returns an image of two discs that touch and one apart, labels of the first and the last, and all discs."""
    cells = [disc(20, 20), disc(20, 35.5), disc(45, 50)]
    noise = np.random.default_rng(seed).normal(0, 0.02, SHAPE)
    image = (0.1 + 0.7 * np.any(cells, axis=0) + noise).astype(np.float32)
    label = np.full(SHAPE, -1, np.int32)
    label[cells[0]], label[cells[2]] = 5, 9
    return (image if bright else 1 - image), label, cells


@settings(max_examples=60)
@given(
    label=arrays(np.int32, (9, 8), elements=st.sampled_from([-1, -1, -1, -1, -1, 0, 3, 7])),
    width=st.floats(0.5, 4),
)
def test_equals_its_definition(label, width):
    """The rim is what a search over all pairs of pixels finds."""
    rim = outline_rim(label, width)
    cells, every = np.argwhere(label > 0), np.argwhere(np.ones_like(label))
    away = np.full((len(every), 1), np.inf)
    if len(cells):
        away = np.linalg.norm(every[:, None] - cells[None], axis=2)
    nearest = away.min(1).reshape(label.shape)
    expected = (label == -1) & (nearest <= width)
    assert (rim.pixels == expected).all()
    assert rim.distance[expected] == pytest.approx(nearest[expected])
    assert np.isinf(rim.distance[~expected]).all()
    assert (rim.cell[~expected] == 0).all()
    for pixel in np.argwhere(expected):
        own = np.argwhere(label == rim.cell[tuple(pixel)])
        assert np.linalg.norm(own - pixel, axis=1).min() == pytest.approx(nearest[tuple(pixel)])


def test_no_rim_inside_a_touching_labelled_cell_or_on_labelled_background():
    _, label, cells = touching()
    label[cells[1]] = 6
    label[:, :8] = 0
    rim = outline_rim(label, 3)
    assert rim.pixels.any()
    assert (label[rim.pixels] == -1).all()
    assert set(np.unique(rim.cell)) == {0, 5, 6, 9}


def test_planes_that_are_far_apart_have_no_rim_between_them():
    label = np.full((3, 9, 9), -1, np.int32)
    label[1, 4, 4] = 1
    assert outline_rim(label, 2, 1.0).pixels[0].any()
    rim = outline_rim(label, 2, 2.5)
    assert rim.pixels[1].sum() == 12
    assert not rim.pixels[[0, 2]].any()


@pytest.mark.parametrize("bright", [True, False])
def test_tells_a_touching_neighbour_from_background(bright):
    image, label, cells = touching(bright=bright)
    rim = outline_rim(label, 3)
    same = as_bright_as_cell(image, label, rim)
    neighbour = rim.pixels & cells[1]
    assert same[neighbour].mean() > 0.9
    assert same[rim.pixels & ~cells[1]].mean() < 0.05
    assert not same[~rim.pixels].any()


def test_brightness_says_nothing_where_cells_do_not_differ_from_their_surroundings():
    _, label, _ = touching()
    rim = outline_rim(label, 3)
    flat = np.full(SHAPE, 0.5, np.float32)
    assert (as_bright_as_cell(flat, label, rim) == rim.pixels).all()


@pytest.mark.parametrize("value", [-1, 0, 4])
def test_no_rim_without_cells_or_without_unlabelled_pixels(value):
    label = np.full((5, 5), value, np.int32)
    rim = outline_rim(label, 3)
    assert not rim.pixels.any()
    assert not as_bright_as_cell(np.zeros((5, 5), np.float32), label, rim).any()


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_what_is_made_once_for_background_and_rim_changes_neither(bright, background):
    image, label, _ = touching(bright=bright)
    if background:
        label[:2] = 0
    around = Surroundings(image, label)
    np.testing.assert_array_equal(likely_background(image, label, around=around), likely_background(image, label))
    shared, alone = outline_rim(label, 3, around=around), outline_rim(label, 3)
    for name in ("pixels", "cell", "distance"):
        np.testing.assert_array_equal(getattr(shared, name), getattr(alone, name))
    np.testing.assert_array_equal(
        as_bright_as_cell(image, label, shared, around=around), as_bright_as_cell(image, label, alone)
    )
