"""From probabilities to cells."""

from dataclasses import replace

import numpy as np
import pytest

from cellsparse_common.scoring.matching import match_counts, scores
from cellsparse_unet.instances import Thresholds, find_cells
from cellsparse_unet.targets import three_classes

CUT = Thresholds(
    method="watershed", centre_threshold=0.8, cell_threshold=0.5, centre_scale=0.5, centre_smoothing=0, smallest_cell=0
)


@pytest.fixture
def dense():
    yy, xx = np.indices((90, 120))
    out = np.zeros((90, 120), np.int32)
    for n, (y, x, a, b) in enumerate(
        [(20, 20, 12, 8), (21, 41, 9, 12), (60, 25, 14, 14), (55, 80, 8, 18), (80, 110, 7, 7)]
    ):
        out[((yy - y) / a) ** 2 + ((xx - x) / b) ** 2 <= 1] = n + 1
    return out


def one_hot(label, sure=0.9):
    classes = three_classes(label, 0.5)
    return np.stack([np.where(classes == n, sure, (1 - sure) / 2) for n in range(3)]).astype(np.float32)


@pytest.mark.parametrize("method", ["ellipse", "watershed"])
def test_true_classes_give_the_true_cells(dense, method):
    found = find_cells(one_hot(dense), replace(CUT, method=method))
    assert found.dtype == np.int32
    score = scores(match_counts(dense, found, [0.8])[0])
    assert (score.tp, score.fp, score.fn) == (5, 0, 0)


def test_smoothing_closes_a_broken_centre(dense):
    probability = one_hot(dense)
    probability[:, 60] = probability[(0, 2, 1), 60]  # a line through the largest cell's centre
    broken, whole = (find_cells(probability, replace(CUT, centre_threshold=0.4, centre_smoothing=s)) for s in (0, 1))
    assert broken.max() > whole.max() == 5


def two_discs(apart):
    """Returns the probabilities of two discs of radius 8 whose centres have merged, as networks merge them."""
    yy, xx = np.indices((40, 60))
    inside = np.minimum(np.hypot(yy - 20, xx - 20), np.hypot(yy - 20, xx - 20 - apart)) < 8
    probability = np.full((3, 40, 60), 0.05, np.float32)
    probability[0, ~inside] = probability[2, inside] = 0.9
    return probability, inside


def test_merged_centres_are_split_at_their_neck():
    probability, inside = two_discs(14)
    assert find_cells(probability, CUT).max() == 1
    found = find_cells(probability, replace(CUT, split_depth=0.75))
    assert found.max() == 2
    assert ((found > 0) == inside).all()
    assert np.unique(found[20, :27]).tolist() == [0, found[20, 20]]
    assert found[20, 20] != found[20, 34]


@pytest.mark.parametrize("apart", [0, 4])
def test_a_centre_without_a_neck_stays_whole(apart):
    probability, _ = two_discs(apart)
    assert find_cells(probability, replace(CUT, split_depth=0.75)).max() == 1


def test_centres_too_small_to_have_a_neck_are_not_lost():
    probability = np.full((3, 20, 20), 0.05, np.float32)
    probability[0] = 0.9
    for pixel in ((5, 5), (10, 12), (11, 12)):
        probability[:, *pixel] = 0.05, 0.05, 0.9
    whole, split = (find_cells(probability, replace(CUT, split_depth=depth)) for depth in (0, 0.75))
    assert whole.max() == split.max() == 2


def test_necks_across_planes_count_the_distance_of_planes():
    probability, _ = two_discs(14)
    stack = np.repeat(probability[:, None], 3, axis=1)
    found = find_cells(stack, replace(CUT, split_depth=0.75, plane_distance=5.0))
    assert found.max() == 2


@pytest.mark.parametrize("method", ["ellipse", "watershed"])
def test_no_centre_no_cell(method):
    found = find_cells(np.full((3, 20, 30), 1 / 3, np.float32), replace(CUT, method=method))
    assert found.shape == (20, 30)
    assert not found.any()


@pytest.mark.parametrize("method", ["ellipse", "watershed"])
def test_everything_centre_is_one_cell(method):
    probability = np.zeros((3, 20, 30), np.float32)
    probability[2] = 1
    assert np.unique(find_cells(probability, replace(CUT, method=method))).tolist() in ([1], [0, 1])


def test_ranges_are_checked():
    for change in (
        {"method": "x"},
        {"centre_threshold": 0},
        {"cell_threshold": 1},
        {"smallest_cell": -1},
        {"centre_smoothing": 6},
        {"split_depth": 11},
    ):
        with pytest.raises(ValueError, match=next(iter(change))):
            replace(CUT, **change)
