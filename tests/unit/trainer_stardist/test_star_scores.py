import numpy as np
from stardist import Rays_GoldenSpiral
from stardist.geometry import polygons_to_label, polyhedron_to_label

from cellsparse_stardist.star_scores import star_scores

PROBABILITIES = np.array([0.9, 0.4, 0.7], np.float32)


def test_a_star_that_another_covers_has_no_score_in_images():
    points = np.array([[20, 20], [20, 21], [20, 60]])
    distances = np.array([[10], [3], [8]], np.float32) * np.ones((1, 16), np.float32)
    labels = polygons_to_label(distances, points, (40, 80), prob=PROBABILITIES)
    assert np.unique(labels).tolist() == [0, 1, 3]
    assert star_scores(labels, {"prob": PROBABILITIES}).tolist() == PROBABILITIES[[0, 2]].tolist()


def test_a_star_that_another_covers_has_no_score_in_stacks():
    rays = Rays_GoldenSpiral(32)
    points = np.array([[10, 20, 20], [10, 20, 21], [10, 20, 60]])
    distances = np.array([[9], [3], [7]], np.float32) * np.ones((1, 32), np.float32)
    stars = {"prob": PROBABILITIES, "dist": distances, "points": points, "rays": rays}
    drawn = polyhedron_to_label(distances, points, rays=rays, prob=PROBABILITIES, shape=(20, 40, 80), verbose=False)
    labels = np.unique(drawn, return_inverse=True)[1].reshape(drawn.shape).astype(np.int32)
    assert labels.max() == 2
    assert star_scores(labels, stars).tolist() == PROBABILITIES[[0, 2]].tolist()
