"""What is drawn in a labels layer, as labels of a dataset."""

import numpy as np
import pytest

from cellsparse.errors import InvalidArgument
from cellsparse_napari.labels import EXPLANATIONS, TITLES, Background, count_cells, dataset_labels

DRAWN = np.array([[0, 1, 1], [0, 2, 7], [0, 0, 7]])


@pytest.mark.parametrize(
    ("background", "expected"),
    [
        (Background.NOT_MARKED, [[-1, 1, 1], [-1, 2, 7], [-1, -1, 7]]),
        (Background.FIRST_LABEL, [[-1, 0, 0], [-1, 2, 7], [-1, -1, 7]]),
        (Background.ZERO, [[0, 1, 1], [0, 2, 7], [0, 0, 7]]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_zero_is_not_labelled_unless_told(background, expected, dtype):
    labels = dataset_labels(DRAWN.astype(dtype), background)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


def test_a_second_layer_is_background_where_no_cell_is():
    second = np.array([[5, 5, 0], [0, 0, 0], [0, 1, 0]])
    labels = dataset_labels(DRAWN, Background.OTHER_LAYER, second)
    np.testing.assert_array_equal(labels, [[0, 1, 1], [-1, 2, 7], [-1, 0, 7]])


def test_the_layers_are_not_changed():
    cells, second = DRAWN.copy(), np.ones_like(DRAWN)
    dataset_labels(cells, Background.OTHER_LAYER, second)
    np.testing.assert_array_equal(cells, DRAWN)
    assert (second == 1).all()


def test_numbers_below_zero_are_not_labelled():
    np.testing.assert_array_equal(dataset_labels(np.array([[-1, -5, 3]]), Background.ZERO), [[-1, -1, 3]])


@pytest.mark.parametrize(
    ("cells", "background", "named"),
    [
        (DRAWN.astype(np.float32), Background.ZERO, "float32"),
        (np.array([[2**31]]), Background.ZERO, str(2**31)),
        (DRAWN, Background.OTHER_LAYER, "in which background is drawn"),
    ],
)
def test_what_cannot_be_labels_is_a_sentence(cells, background, named):
    with pytest.raises(InvalidArgument, match=named):
        dataset_labels(cells, background)


def test_cells_are_counted_by_their_numbers():
    assert count_cells(dataset_labels(DRAWN, Background.FIRST_LABEL)) == 2


def test_every_choice_is_explained():
    assert set(TITLES) == set(EXPLANATIONS) == set(Background)
