import numpy as np
import pytest

from cellsparse_stardist.framework import polygons_to_label, star_dist
from cellsparse_stardist.ray_averages import averaged, owners


def ellipse(shape=(60, 70), half=(12.3, 20.7)):
    rows, columns = np.indices(shape)
    return ((((rows - 30) / half[0]) ** 2 + ((columns - 33) / half[1]) ** 2) < 1).astype(np.int32)


def stars(label):
    """Return rays, points and probabilities at every second pixel of the cells of a label image."""
    points = np.argwhere(label[::2, ::2] > 0)
    dist = star_dist(label, 32, grid=(2, 2))[tuple(points.T)]
    return dist, points * 2, np.full(len(points), 0.8, np.float32)


def test_grid_points_that_agree_leave_the_outline_where_it_is():
    label = ellipse()
    dist, points, prob = stars(label)
    middle = [int(np.argmin(np.hypot(*(points - (30, 33)).T)))]
    moved = averaged(dist[middle], points[middle], dist, points, prob, np.zeros(len(points), int))
    np.testing.assert_allclose(moved, dist[middle], atol=0.8)
    drawn = polygons_to_label(moved, points[middle], label.shape)
    assert (drawn * label).sum() / (drawn | label).sum() > 0.96


def test_errors_of_single_grid_points_average_out():
    label = ellipse()
    dist, points, prob = stars(label)
    noisy = dist + np.random.default_rng(0).normal(0, 2, dist.shape).astype(np.float32)
    middle = [int(np.argmin(np.hypot(*(points - (30, 33)).T)))]
    moved = averaged(noisy[middle], points[middle], noisy, points, prob, np.zeros(len(points), int))
    assert np.abs(moved - dist[middle]).mean() < 0.4 * np.abs(noisy[middle] - dist[middle]).mean()


def test_each_cell_hears_its_own_grid_points_only():
    dist = np.full((4, 8), 5, np.float32)
    dist[1] = 7  # at the place of the first cell, and twice as probable as its own
    places = np.array([[10, 10], [10, 10], [30, 30], [50, 50]])
    prob = np.array([0.4, 0.8, 0.5, 0.9], np.float32)
    moved = averaged(dist[[0, 2]], places[[0, 2]], dist, places, prob, np.array([0, 0, 1, -1]))
    np.testing.assert_allclose(moved[0], (0.16 * 5 + 0.64 * 7) / 0.8, rtol=1e-5)
    np.testing.assert_allclose(moved[1], 5, rtol=1e-5)


@pytest.mark.parametrize("owner", [[], [-1]])
def test_without_grid_points_nothing_moves(owner):
    dist = np.ones((2, 8), np.float32)
    count = len(owner)
    moved = averaged(
        dist,
        np.zeros((2, 2), int),
        np.ones((count, 8), np.float32),
        np.zeros((count, 2), int),
        np.ones(count, np.float32),
        np.array(owner, int),
    )
    np.testing.assert_array_equal(moved, dist)


def test_owners_are_the_cells_at_the_points_even_at_the_end_of_an_odd_image():
    labels = np.zeros((5, 5), np.int32)
    labels[3:, 3:] = 2
    assert owners(labels, np.array([[0, 0], [4, 4], [5, 5]])).tolist() == [-1, 1, 1]
