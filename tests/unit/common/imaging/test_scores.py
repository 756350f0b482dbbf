import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellsparse_common.imaging.scores import Segmentation, cell_numbers, mean_per_cell

LABELS = arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=st.integers(0, 7))


@given(LABELS, st.integers(0, 2**31))
def test_there_is_one_score_per_cell_in_their_order(labels, seed):
    values = np.random.default_rng(seed).random(labels.shape, np.float32)
    scores = mean_per_cell(labels, values)
    numbers = cell_numbers(labels)
    assert numbers.tolist() == [number for number in np.unique(labels).tolist() if number]
    np.testing.assert_allclose(scores, [values[labels == number].mean() for number in numbers], rtol=1e-5)
    assert scores.dtype == np.float32


@given(LABELS, st.integers(0, 12))
def test_cells_that_stay_keep_their_scores(labels, min_pixels):
    numbers = cell_numbers(labels)
    found = Segmentation(labels=labels, scores=(numbers / 10).astype(np.float32))
    kept = found.without_small(min_pixels)
    assert kept.scores.shape == cell_numbers(kept.labels).shape
    for number, score in zip(cell_numbers(kept.labels), kept.scores, strict=True):
        (before,) = np.unique(labels[kept.labels == number])
        assert score == np.float32(before / 10)


def test_scores_are_cut_to_0_to_1():
    labels = np.array([[1, 2, 0]], np.int32)
    assert mean_per_cell(labels, np.array([[-0.1, 1.2, 5]], np.float32)).tolist() == [0, 1]
    assert mean_per_cell(np.zeros((2, 2), np.int32), np.ones((2, 2), np.float32)).shape == (0,)


def test_another_number_of_scores_is_refused():
    with pytest.raises(ValueError, match="1 scores for 2 cells"):
        Segmentation(labels=np.array([[1, 3]], np.int32), scores=np.ones(1, np.float32))
