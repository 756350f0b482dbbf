"""Ellipses and three-class targets."""

import numpy as np
import pytest
from skimage.measure import regionprops

from cellsparse_unet.ellipses import PIXEL_MOMENT, cell_moments, draw, reach_of
from cellsparse_unet.targets import three_classes


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
