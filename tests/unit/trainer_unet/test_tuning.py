"""The choice of method and thresholds."""

from dataclasses import replace

import numpy as np
import pytest

from cellsparse_common.scoring.matching import match_counts, scores
from cellsparse_unet import tuning
from cellsparse_unet.instances import default_thresholds, find_cells
from cellsparse_unet.targets import outline_classes
from cellsparse_unet.tuning import best_thresholds


@pytest.fixture
def dense():
    yy, xx = np.indices((90, 120))
    out = np.zeros((90, 120), np.int32)
    cells = [(20, 20, 12, 8), (21, 41, 9, 12), (60, 25, 14, 14), (55, 80, 8, 18), (80, 110, 7, 7)]
    for n, (y, x, a, b) in enumerate(cells):
        out[((yy - y) / a) ** 2 + ((xx - x) / b) ** 2 <= 1] = n + 1
    return out


def one_hot(label, sure=0.9):
    classes = outline_classes(label, 0.6)
    return np.stack([np.where(classes == n, sure, (1 - sure) / 2) for n in range(3)]).astype(np.float32)


def test_tuning_keeps_defaults_without_evidence(make_config):
    config = make_config()
    empty = np.full((20, 20), -1, np.int32)
    assert best_thresholds(config, []) == default_thresholds(config)
    assert best_thresholds(config, [(np.full((3, 20, 20), 1 / 3, np.float32), empty)]) == default_thresholds(config)


def test_tuning_finds_a_threshold_that_works(dense, make_config):
    label = np.where(np.isin(dense, (1, 2, 3)), dense, -1).astype(np.int32)
    unsure = one_hot(dense, 0.55)
    chosen = best_thresholds(make_config(), [(unsure, label)])
    assert scores(match_counts(dense, find_cells(unsure, chosen), [0.7])[0]).f1 == 1
    assert 0 < chosen.smallest_cell < np.bincount(dense.ravel()).min()


def test_tuning_leaves_what_is_fixed(dense, make_config):
    config = make_config(centre_threshold=0.77, instance_method="ellipse")
    chosen = best_thresholds(config, [(one_hot(dense), dense)])
    assert (chosen.method, chosen.centre_threshold) == ("ellipse", 0.77)


def test_the_best_of_both_lines_wins(make_config, monkeypatch):
    """Centre and cell threshold are chosen one by one, whatever the other is."""
    config = make_config(target_shape="ellipse")
    start = default_thresholds(config)
    monkeypatch.setattr(tuning, "CENTRE_PRICE", 0)
    choices = tuning._choices(config, start)
    assert choices[0] == start
    assert len(set(choices)) == len(choices)
    assert {each.method for each in tuning._choices(make_config(), start)} == {"watershed"}
    points = [
        (each.method == start.method) - abs(each.centre_threshold - 0.8) - abs(each.cell_threshold - 0.3)
        for each in choices
    ]
    assert tuning._best(choices, points) == replace(start, centre_threshold=0.8, cell_threshold=0.3)
    assert tuning._best(choices, [0.0] * len(choices)) == start
    other = [float(each.method != start.method and each.centre_threshold == 0.7) for each in choices]
    assert tuning._best(choices, other) == replace(start, method="ellipse", centre_threshold=0.7)


def test_small_cells_are_smoothed_less(make_config):
    """The default smoothing flattens their centres; a setting that is given stays."""
    yy, xx = np.indices((60, 60))
    label = np.zeros((60, 60), np.int32)
    for number in range(25):
        y, x = 6 + 12 * (number // 5), 6 + 12 * (number % 5)
        label[np.hypot(yy - y, xx - x) < 3.5] = number + 1
    probability = one_hot(label)
    chosen = best_thresholds(make_config(centre_threshold=0.6), [(probability, label)])
    assert chosen.centre_smoothing < default_thresholds(make_config()).centre_smoothing
    assert scores(match_counts(label, find_cells(probability, chosen), [0.7])[0]).f1 == 1
    assert best_thresholds(make_config(centre_smoothing=1.25), [(probability, label)]).centre_smoothing == 1.25


def test_centre_threshold_and_smoothing_do_not_both_leave_their_defaults(make_config):
    config = make_config()
    start = default_thresholds(config)
    choices = tuning._choices(config, start)
    points = [(each.centre_threshold == 0.7) + 2.0 * (each.centre_smoothing == 2.0) for each in choices]
    assert tuning._best(choices, points) == replace(start, centre_smoothing=2.0)


def test_many_labelled_cells_are_followed_further_than_few(make_config, monkeypatch):
    """A dim ring around every cell, which the default threshold takes in, costs F1 at IoU 0.9 only."""
    monkeypatch.setattr(tuning, "CELL_PRICE", 2)
    yy, xx = np.indices((30, 30))
    away = np.hypot(yy - 15, xx - 15)
    label = (away < 8).astype(np.int32)
    probability = np.zeros((3, 30, 30), np.float32)
    probability[2] = np.where(away < 6, 0.9, 0)
    probability[1] = np.where(away < 8, 1, np.where(away < 8.5, 0.55, 0)) - probability[2]
    probability[0] = 1 - probability[1:].sum(0)
    few, many = (best_thresholds(make_config(), [(probability, label)] * count) for count in (1, 100))
    start = default_thresholds(make_config())
    assert few.cell_threshold == start.cell_threshold
    assert many.cell_threshold > start.cell_threshold
