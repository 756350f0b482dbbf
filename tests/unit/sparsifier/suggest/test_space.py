import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellsparse_sparsifier.suggest.overlaps import best_overlaps, disagreement
from cellsparse_sparsifier.suggest.space import FAR, k_means, robust_scores, typicality


def test_scores_are_robust_and_bounded():
    points = np.random.default_rng(0).normal(5, 2, (500, 3))
    points[0] = 1e9
    scores = robust_scores(points)
    assert np.abs(np.median(scores, axis=0)).max() < 1e-9
    assert scores[1:].std() == pytest.approx(1, abs=0.1)
    assert scores.max() == FAR
    # A column that mostly holds one value, and one that holds nothing else.
    some = np.zeros((20, 2))
    some[:3, 0] = 1
    assert robust_scores(some)[0, 0] > 1
    assert (robust_scores(some)[:, 1] == 0).all()
    assert robust_scores(np.zeros((0, 2))).shape == (0, 2)


def test_the_middle_of_a_crowd_is_typical_and_an_outlier_is_not():
    random = np.random.default_rng(0)
    points = np.concatenate([random.normal(0, 1, (100, 2)), [[0.0, 0.0], [12.0, 12.0]]])
    found = typicality(points)
    assert found[100] > 0.5
    assert found.argmin() == 101
    assert typicality(points[:1]).tolist() == [1]
    assert typicality(points[:0]).size == 0


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 30), k=st.integers(0, 12), seed=st.integers(0, 5), same=st.booleans())
def test_clusters_are_numbered_none_is_empty_and_the_seed_decides(count, k, seed, same):
    points = np.zeros((count, 3)) if same else np.random.default_rng(seed).normal(size=(count, 3))
    owner = k_means(points, k, seed)
    assert owner.shape == (count,)
    assert np.array_equal(owner, k_means(points, k, seed))
    if count:
        present = np.unique(owner)
        assert np.array_equal(present, np.arange(len(present)))
        assert len(present) <= max(1, min(k, count))


def test_clusters_find_groups_that_lie_apart():
    random = np.random.default_rng(1)
    points = np.concatenate([random.normal(center, 0.1, (20, 2)) for center in ((0, 0), (5, 0), (0, 5))])
    owner = k_means(points, 3, 0)
    assert len(np.unique(owner)) == 3
    assert all(len(np.unique(owner[begin : begin + 20])) == 1 for begin in (0, 20, 40))


def test_overlaps_are_those_of_the_best_partner():
    label = np.zeros((6, 6), np.int32)
    label[:3, :3], label[4:, 4:] = 1, 2
    other = np.zeros((6, 6), np.int32)
    other[:3, :2], other[:3, 2:4] = 4, 9
    best, covered = best_overlaps(label, other)
    assert best.tolist() == pytest.approx([6 / 9, 0])
    assert covered.tolist() == pytest.approx([1, 0])
    assert disagreement(label, [label, other]).tolist() == pytest.approx([1 - (1 + 6 / 9) / 2, 0.5])
    assert disagreement(label, []).tolist() == [0, 0]
    assert best_overlaps(np.zeros((2, 2), np.int32), other[:2, :2])[0].size == 0
