import numpy as np

from cellsparse_stardist.instances import DEFAULT, best_thresholds
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
        lambda _, choices: [cells(0, 10, 20) if each.prob >= 0.6 else cells(0, 10, 20, 30, 40) for each in choices],
    )
    assert (found.prob, found.nms) == (0.6, DEFAULT.nms)


def test_cells_on_unlabelled_pixels_change_nothing():
    true = cells(0, 10, 20)
    true[:, 28:] = -1
    found = best_thresholds(
        [sample(true)],
        lambda _, choices: [cells(0, 10, 20) if each.prob >= 0.6 else cells(0, 10, 20, 30, 40) for each in choices],
    )
    assert found == DEFAULT


def test_missed_cells_lower_it_and_ties_keep_the_default():
    true = cells(0, 10, 20)
    lower = best_thresholds(
        [sample(true)], lambda _, choices: [cells(0, 10, 20) if c.prob < 0.45 else cells(0) for c in choices]
    )
    assert (lower.prob, lower.nms) == (0.4, DEFAULT.nms)
    assert best_thresholds([sample(true)], lambda _, choices: [cells(0, 10)] * len(choices)) == DEFAULT


def test_a_network_that_finds_nothing_keeps_the_default():
    assert best_thresholds([sample(cells(0))], lambda _, choices: [cells()] * len(choices)) == DEFAULT
