import numpy as np
import pytest

from cellsparse_stardist.instances import SIZE_DOUBT, SIZE_LIMITS, START, best_thresholds, size_factor
from cellsparse_trainer.data.samples import Sample


def sample(label):
    return Sample(name="one", image=np.zeros(label.shape, np.float32), label=label)


def cells(*columns, shape=(10, 60)):
    label = np.zeros(shape, np.int32)
    for number, column in enumerate(columns, 1):
        label[2:8, column : column + 6] = number
    return label


def test_false_cells_on_labelled_background_raise_the_threshold():
    true = cells(0, 10, 20)
    found = best_thresholds(
        [sample(true)],
        lambda _, choices: [cells(0, 10, 20) if each.prob >= 0.75 else cells(0, 10, 20, 30, 40) for each in choices],
    )
    assert (found.prob, found.nms) == (0.75, START.nms)


def test_cells_on_unlabelled_pixels_change_nothing():
    true = cells(0, 10, 20)
    true[:, 28:] = -1
    found = best_thresholds(
        [sample(true)],
        lambda _, choices: [cells(0, 10, 20) if each.prob >= 0.75 else cells(0, 10, 20, 30, 40) for each in choices],
    )
    assert found == START


def test_missed_cells_lower_it_and_ties_keep_the_start():
    true = cells(0, 10, 20)
    lower = best_thresholds(
        [sample(true)], lambda _, choices: [cells(0, 10, 20) if c.prob < 0.5 else cells(0) for c in choices]
    )
    assert (lower.prob, lower.nms) == (0.45, START.nms)
    assert best_thresholds([sample(true)], lambda _, choices: [cells(0, 10)] * len(choices)) == START


def test_a_network_that_finds_nothing_keeps_the_start():
    assert best_thresholds([sample(cells(0))], lambda _, choices: [cells()] * len(choices)) == START


def squares(side, count, known=1_000):
    """A row of squares of some side, 20 pixels apart; those after the first `known` are not labelled."""
    label = np.zeros((40, 20 * count), np.int32)
    for number in range(count):
        middle = 20 * number + 10
        label[20 - side // 2 : 20 + side // 2, middle - side // 2 : middle + side // 2] = number + 1
    if known < count:
        label[:, 20 * known :] = -1
    return label


@pytest.mark.parametrize(("true", "found"), [(12, 10), (10, 12), (10, 10)])
def test_rays_grow_by_what_labelled_cells_are_found_too_small(true, found):
    count = 200
    factor = size_factor([sample(squares(true, count))], lambda _: squares(found, count))
    assert factor == pytest.approx((true / found) ** (count / (count + SIZE_DOUBT)))


def test_few_cells_change_sizes_little_and_unlabelled_ones_not_at_all():
    few = size_factor([sample(squares(12, 9, known=2))], lambda _: squares(10, 9))
    assert few == pytest.approx(1.2 ** (2 / (2 + SIZE_DOUBT)))


def test_sizes_stay_where_no_cell_is_found_and_within_limits():
    assert size_factor([sample(squares(10, 3))], lambda _: np.zeros((40, 60), np.int32)) == 1
    assert size_factor([sample(squares(4, 3))], lambda _: squares(14, 3)) == 1  # an IoU below 0.5 is another cell
    assert size_factor([sample(squares(14, 300))], lambda _: squares(10, 300)) == SIZE_LIMITS[1]
    assert size_factor([], lambda _: squares(10, 3)) == 1
