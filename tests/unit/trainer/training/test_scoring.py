"""The score that chooses the best checkpoint: it sees borders, and cells found too large cost something."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsparse_common.scoring.matching import match_counts, match_outlines, scores
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.training.scoring import IOUS, outline_counts, validation_scores

SIDE = 64
YS, XS = np.mgrid[:SIDE, :SIDE]


def disc(y, x, radius):
    return (YS - y) ** 2 + (XS - x) ** 2 <= radius**2


def cells(*discs, background=False):
    label = np.full((SIDE, SIDE), 0 if background else -1, np.int32)
    for number, one in enumerate(discs, start=1):
        label[disc(*one)] = number
    return label


class Drawn:
    """A model that finds given discs."""

    def __init__(self, *discs):
        self.discs = discs

    def predict(self, image):
        return np.maximum(cells(*self.discs), 0)


def score(true, *discs):
    sample = Sample(name="a", image=np.zeros(true.shape, np.float32), label=true)
    return validation_scores(Drawn(*discs), [sample])


TRUE = ((20, 20, 8), (44, 44, 8))


@pytest.mark.parametrize("background", [False, True])
def test_true_borders_score_more_than_rough_ones_of_the_same_f1(background):
    true = cells(*TRUE, background=background)
    exact, rough = score(true, *TRUE), score(true, (20, 20, 10), (44, 44, 10))
    assert exact["f1"] == rough["f1"] == exact["score"] == 1
    assert 0.2 < rough["score"] < 0.5


def test_every_pixel_too_far_costs_something_on_sparse_labels():
    true = cells(*TRUE)
    found = [score(true, *((y, x, radius + more) for y, x, radius in TRUE))["score"] for more in range(8)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 1
    assert found[-1] == 0


def test_a_cell_found_far_too_large_is_false_and_misses_the_labelled_one():
    true = cells(*TRUE)
    huge = score(true, TRUE[0], (44, 44, 19))
    absent = score(true, TRUE[0])
    assert huge["recall"] == absent["recall"] == 0.5
    assert (huge["precision"], absent["precision"]) == (0.5, 1.0)
    assert huge["score"] < absent["score"]


def test_two_cells_found_as_one_cost_both():
    found = score(cells((20, 20, 8), (20, 36, 8)), (20, 28, 17))
    assert (found["precision"], found["recall"], found["score"]) == (0, 0, 0)


def test_cells_that_nobody_labelled_cost_nothing_and_those_on_background_do():
    unknown, background = cells(*TRUE), cells(*TRUE, background=True)
    assert score(unknown, *TRUE, (20, 50, 6))["score"] == 1
    assert score(background, *TRUE, (20, 50, 6))["precision"] == pytest.approx(2 / 3)


def test_items_count_together_and_an_item_without_cells_can_only_cost():
    samples = [
        Sample(name=name, image=np.zeros((SIDE, SIDE), np.float32), label=label)
        for name, label in {"a": cells(*TRUE), "b": cells(background=True)}.items()
    ]
    found = validation_scores(Drawn(*TRUE), samples)
    assert (found["precision"], found["recall"]) == (0.5, 1.0)
    assert found["score"] == pytest.approx(2 / 3)


LABELS = st.lists(st.integers(-1, 3), min_size=36, max_size=36).map(lambda n: np.array(n, np.int32).reshape(6, 6))


@given(LABELS, LABELS)
def test_on_dense_labels_it_is_the_score_of_the_data_set(true, pred):
    true, pred = np.maximum(true, 0), np.maximum(pred, 0)
    assert outline_counts(true, pred) == match_counts(true, pred, IOUS)


@given(LABELS, LABELS)
def test_it_only_adds_false_cells_to_the_sparse_score_of_outlines(true, pred):
    pred = np.maximum(pred, 0)
    for ours, plain in zip(outline_counts(true, pred), match_outlines(true, pred, IOUS), strict=True):
        assert (ours.tp, ours.fn) == (plain.tp, plain.fn)
        assert ours.fp >= plain.fp
        assert scores(ours).f1 <= scores(plain).f1
