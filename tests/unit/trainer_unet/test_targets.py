"""Ellipses, true shapes, and three-class targets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops

from cellsparse_unet.ellipses import PIXEL_MOMENT, cell_moments, draw, reach_of
from cellsparse_unet.targets import TOUCHING, mark_touching, outline_classes, three_classes


def ellipse(shape, centre, axes, turn=0.0):
    yy, xx = np.indices(shape) - np.array(centre, float)[:, None, None]
    u, v = yy * np.cos(turn) + xx * np.sin(turn), -yy * np.sin(turn) + xx * np.cos(turn)
    return (u / axes[0]) ** 2 + (v / axes[1]) ** 2 <= 1


@pytest.fixture
def label():
    out = np.zeros((80, 90), np.int32)
    out[ellipse(out.shape, (20, 22), (12, 7), 0.4)] = 3
    out[ellipse(out.shape, (55, 60), (9, 15), 1.0)] = 7
    out[5:9, 70:85] = 12
    return out


def test_moments_equal_regionprops(label):
    moments = cell_moments(label)
    regions = regionprops(label)
    assert moments.ids.tolist() == [r.label for r in regions]
    for n, region in enumerate(regions):
        assert moments.area[n] == region.area
        np.testing.assert_allclose(moments.centre[n], region.centroid)
        mu = region.moments_central
        expected = np.array([[mu[2, 0], mu[1, 1]], [mu[1, 1], mu[0, 2]]]) / mu[0, 0]
        np.testing.assert_allclose(moments.covariance[n], expected + PIXEL_MOMENT * np.eye(2), atol=1e-9)


def test_drawn_ellipse_equals_the_cell(label):
    owner, radius = draw(cell_moments(label), label.shape)
    for cell in (3, 7):
        both = ((owner == cell) & (label == cell)).sum()
        assert both / ((owner == cell) | (label == cell)).sum() > 0.95
    semi_axes = reach_of(2) * np.sqrt(np.linalg.eigvalsh(cell_moments(label).covariance[0]))
    np.testing.assert_allclose(semi_axes, (7, 12), rtol=0.02)
    assert radius[20, 22] < 0.1
    assert np.isinf(radius[0, 0])


def test_degenerate_cells_are_safe():
    label = np.full((40, 40), -1, np.int32)
    label[0, 0] = 1
    label[5, 2:30] = 2
    label[39, 39] = label[0, 39] = 3
    label[20:22, 20] = 4
    classes = three_classes(label, 0.5)
    assert classes[0, 0] == 2
    assert (classes[5, 2:30] > 0).all()
    assert classes[39, 39] == classes[0, 39] == 1
    assert np.isfinite(cell_moments(label).covariance).all()


def test_nothing_labelled():
    label = np.full((7, 5), -1, np.int32)
    assert (three_classes(label, 0.5) == -1).all()
    label[2, 2] = 0
    assert (three_classes(label, 0.5) >= 0).sum() == 1


def test_classes_of_a_disk():
    label = np.zeros((41, 41), np.int32)
    disk = ellipse(label.shape, (20, 20), (10, 10))
    label[disk] = 5
    classes = three_classes(label, 0.5)
    assert ((classes > 0) == disk).mean() > 0.99
    assert classes[20, 20] == 2
    assert classes[20, 20 + 4] == 2  # radius 5 less the rim
    assert classes[20, 20 + 5] == 1
    assert (classes[~disk] <= 0).all()


def test_labels_limit_the_ellipse(label):
    sparse = np.where(label == 7, 7, -1).astype(np.int32)
    sparse[55:, :] = np.where(sparse[55:, :] == 7, -1, sparse[55:, :])  # half a cell: its ellipse reaches out
    sparse[:, :52] = np.where(sparse[:, :52] == -1, 0, sparse[:, :52])
    sparse[50:52, 70:72] = 9
    before = sparse.copy()
    classes = three_classes(sparse, 0.5)
    assert (sparse == before).all()
    assert (classes[sparse == 0] == 0).all()
    assert (classes[sparse > 0] > 0).all()
    assert ((classes > 0) & (sparse == -1)).any()
    far = sparse == -1
    far[30:75, 35:85] = False
    assert (classes[far] == -1).all()
    assert (classes[50:52, 70:72] > 0).all()


def test_touching_cells_keep_apart():
    label = np.zeros((30, 60), np.int32)
    label[ellipse(label.shape, (15, 20), (10, 10))] = 1
    label[ellipse(label.shape, (15, 41), (10, 10))] = 2
    classes = three_classes(label, 0.9)
    assert (classes[15, 29:32] < 2).all()
    assert classes[15, 20] == classes[15, 41] == 2


@settings(max_examples=60)
@given(
    label=arrays(np.int32, (9, 8), elements=st.sampled_from([-1, 0, 3, 3, 3, 9])),
    scale=st.floats(0.1, 0.9),
)
def test_outlines_keep_every_labelled_pixel_and_a_centre_of_every_cell(label, scale):
    before = label.copy()
    classes = outline_classes(label, scale)
    assert (label == before).all()
    assert (np.sign(classes) == np.sign(label)).all()
    for cell in np.unique(label[label > 0]):
        assert (classes[label == cell] == 2).any()


def test_outlines_of_a_disk_are_those_of_its_ellipse_but_for_a_pixel():
    label = np.zeros((41, 41), np.int32)
    label[ellipse(label.shape, (20, 20), (10.5, 10.5))] = 5
    shape, drawn = outline_classes(label, 0.6), three_classes(label, 0.6)
    assert (shape == drawn).mean() > 0.97
    assert ((shape > 0) == (label > 0)).all()
    middle = shape[20, 10:31] == 2
    assert middle.sum() == pytest.approx(0.6 * 21, abs=1)
    assert middle[10]


def test_outlines_follow_a_bent_cell_where_an_ellipse_cannot():
    label = np.zeros((50, 50), np.int32)
    label[5:45, 5:15] = label[35:45, 5:45] = 1
    assert ((outline_classes(label, 0.6) > 0) == (label > 0)).all()
    ellipse_drawn = three_classes(np.where(label == 1, 1, -1).astype(np.int32), 0.6) > 0
    assert (ellipse_drawn & (label == 0)).sum() > 200


def test_the_border_of_the_image_is_no_outline():
    label = np.zeros((20, 30), np.int32)
    label[:, :10] = 1
    classes = outline_classes(label, 0.5)
    assert (classes[:, 0] == 2).all()
    assert (classes[:, 9] == 1).all()
    assert (outline_classes(np.ones((5, 5), np.int32), 0.5) == 2).all()


def test_outlines_of_touching_cells_keep_apart():
    label = np.zeros((30, 60), np.int32)
    label[8:22, 10:30] = 1
    label[8:22, 30:50] = 2
    classes = outline_classes(label, 0.9)
    assert (classes[:, 29:31] < 2).all()


def test_depth_in_stacks_counts_the_distance_of_planes():
    label = np.zeros((9, 21, 21), np.int32)
    label[2:7, 4:17, 4:17] = 1
    near, far = outline_classes(label, 0.5, 1.0), outline_classes(label, 0.5, 4.0)
    assert near[2, 10, 10] == 1
    assert far[2, 10, 10] == 2
    assert (near[4, 10, 10], far[4, 10, 10]) == (2, 2)


def test_only_outer_pixels_beside_another_cell_touch():
    label = np.full((30, 70), -1, np.int32)
    label[8:22, 10:30] = 1
    label[8:22, 30:50] = 2
    classes = outline_classes(label, 0.5)
    none = np.zeros(label.shape, bool)
    marked = mark_touching(classes, label, none)
    touching = marked == TOUCHING
    assert touching[8:22, 28:32].all()
    assert not touching[:, :28].any()
    assert not touching[:, 32:].any()
    assert (np.where(touching, 1, marked) == classes).all()
    neighbour = none.copy()
    neighbour[10:20, 50:52] = True
    beside = mark_touching(classes, label, neighbour) == TOUCHING
    assert beside[10:20, 48:50].all()
    assert (beside[:, :47] == touching[:, :47]).all()
    assert (label >= 0)[beside].all()
