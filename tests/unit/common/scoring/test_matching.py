"""Scores agree with stardist.matching on dense labels and ignore what is not labelled on sparse ones."""

import time

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.paths import DSB2018
from support.total_scores import total_scores

from cellsparse_common.scoring.matching import (
    DEFAULT_IOUS,
    Counts,
    Score,
    match_counts,
    match_outlines,
    scores,
)

FIELDS = {
    "tp": "tp",
    "fp": "fp",
    "fn": "fn",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
    "accuracy": "ap",
    "mean_matched_score": "mean_matched_score",
    "mean_true_score": "mean_true_score",
    "panoptic_quality": "pq",
}


def assert_equals_reference(pairs, ious, fields=FIELDS):
    reference = pytest.importorskip("stardist.matching")
    expected = reference.matching_dataset(*zip(*pairs, strict=True), thresh=ious, show_progress=False, by_image=False)
    for ours, theirs in zip(total_scores(pairs, ious), expected, strict=True):
        for name, own in fields.items():
            assert getattr(ours, own) == pytest.approx(getattr(theirs, name), abs=1e-9), (ours.iou, name)


def perturbed(label, rng):
    """A prediction with shifted, missing, merged, split and invented cells, numbers shuffled."""
    pred = np.roll(label.astype(np.int32), rng.integers(-3, 4, 2), axis=(0, 1))
    numbers = np.unique(pred[pred > 0])
    new = rng.permutation(numbers.size * 3)[: numbers.size] + 1
    lookup = np.zeros(int(numbers.max(initial=0)) + 1, np.int32)
    lookup[numbers] = np.where(rng.random(numbers.size) < 0.1, 0, new)
    pred = lookup[pred]
    if numbers.size > 3:
        pred[pred == new[0]] = new[1]
        pred[: pred.shape[0] // 2][pred[: pred.shape[0] // 2] == new[2]] = new.max() + 1
    pred[2:9, 2:9] = new.max(initial=0) + 2
    noise = rng.random(pred.shape) < 0.05
    pred[noise] = 0
    return pred


def nuclei(count):
    files = sorted(DSB2018.glob("val/masks/*.tif"))[:count]
    if not files:
        pytest.skip(f"no nuclei in {DSB2018}")
    return [tifffile.imread(file).astype(np.int32) for file in files]


def test_agrees_with_stardist_on_nuclei():
    rng = np.random.default_rng(1)
    pairs = [(label, perturbed(label, rng)) for label in nuclei(25)]
    assert_equals_reference(pairs, DEFAULT_IOUS)
    assert_equals_reference(pairs, tuple(np.arange(0.5, 0.95, 0.05).tolist()))  # 0.6000000000000001 and the like
    assert_equals_reference(pairs, (0.1, 0.2, 0.3, 0.4, 1.0))


small_labels = hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 6))


@st.composite
def label_pairs(draw):
    true = draw(small_labels)
    pred = draw(
        st.one_of(
            hnp.arrays(np.int32, true.shape, elements=st.integers(0, 6)),
            st.sampled_from([true, np.roll(true, 1, axis=0), np.where(true > 3, 0, true), np.zeros_like(true)]),
        )
    )
    return true, pred


@settings(max_examples=150)
@given(st.lists(label_pairs(), min_size=1, max_size=3))
def test_agrees_with_stardist_on_random_labels(pairs):
    assert_equals_reference(pairs, (0.5, 0.6, 0.75, 1.0))


@settings(max_examples=100)
@given(st.lists(label_pairs(), min_size=1, max_size=3))
def test_counts_agree_with_stardist_below_one_half(pairs):
    """Below 0.5 several matchings can be optimal; they differ in the sum of scores at most by ties."""
    assert_equals_reference(pairs, (0.05, 0.2, 1 / 3, 0.4), {name: name for name in ("tp", "fp", "fn", "precision")})


@settings(max_examples=60)
@given(label_pairs(), st.integers(0, 2**31))
def test_numbering_and_gaps_do_not_matter(pair, seed):
    true, pred = pair
    rng = np.random.default_rng(seed)
    lookup = np.concatenate([[0], rng.choice(2**31 - 2, 6, replace=False) + 1]).astype(np.int64)
    expected = match_counts(true, pred)
    assert match_counts(true, lookup[pred].astype(np.int32)) == expected


@settings(max_examples=60)
@given(label_pairs())
def test_a_dense_image_inside_an_unlabelled_frame_scores_the_same(pair):
    true, pred = pair
    framed = np.full((true.shape[0] + 4, true.shape[1] + 4), -1, np.int32)
    framed[2:-2, 2:-2] = true
    assert match_counts(framed, np.pad(pred, 2)) == match_counts(true, pred)


def test_predictions_mostly_on_unlabelled_pixels_are_left_out():
    true = np.full((10, 20), -1, np.int32)
    true[:, :10] = 0
    true[2:6, 2:6] = 1
    pred = np.zeros_like(true)
    pred[2:6, 2:6] = 4  # the cell itself
    pred[8, 8:12] = 5  # half of it on labelled pixels: a false positive
    pred[9, 8:13] = 6  # more than half outside: ignored
    pred[0:3, 15:18] = 7  # wholly outside: ignored
    (counts,) = match_counts(true, pred, [0.5])
    assert counts == Counts(iou=0.5, tp=1, fp=1, fn=0, sum_matched_score=1.0)


def test_a_kept_prediction_is_compared_on_labelled_pixels_only():
    true = np.full((4, 8), -1, np.int32)
    true[:, :4] = 1
    pred = np.ones_like(true)
    (counts,) = match_counts(true, pred, [1.0])
    assert (counts.tp, counts.fp, counts.fn, counts.sum_matched_score) == (1, 0, 0, 1.0)


@pytest.mark.parametrize("shape", [(0, 0), (5, 7)])
def test_nothing_to_find_gives_zeros(shape):
    empty = np.zeros(shape, np.int32)
    zeros = dict.fromkeys(Score.__dataclass_fields__, 0) | {"iou": 0.5}
    assert total_scores([(empty, empty)], [0.5]) == [Score(**zeros)]
    assert scores(Counts(iou=0.5)) == Score(**zeros)


def test_everything_unlabelled_gives_zeros():
    true = np.full((5, 5), -1, np.int32)
    assert match_counts(true, np.ones((5, 5), np.int32), [0.5]) == [Counts(iou=0.5)]


def test_counts_add_up_and_refuse_another_threshold():
    pairs = [(label, perturbed(label, np.random.default_rng(5))) for label in (_grid(), _grid()[:, ::-1])]
    per_image = [match_counts(true, pred, [0.5])[0] for true, pred in pairs]
    both = per_image[0] + per_image[1]
    assert [both.tp, both.fp, both.fn] == [
        sum(getattr(each, name) for each in per_image) for name in ("tp", "fp", "fn")
    ]
    assert scores(both) == total_scores(iter(pairs), [0.5])[0]
    with pytest.raises(ValueError, match=r"0\.5 and 0\.6"):
        Counts(iou=0.5) + Counts(iou=0.6)


def test_unsigned_labels_are_fine():
    label = _grid()
    assert match_counts(label.astype(np.uint16), label.astype(np.uint8)) == match_counts(label, label)


@pytest.mark.parametrize(
    ("true", "pred", "ious", "words"),
    [
        (np.zeros((2, 2), np.int32), np.zeros((2, 3), np.int32), [0.5], "cannot be compared"),
        (np.zeros((2, 2), np.int32), np.full((2, 2), -1, np.int32), [0.5], "hold -1"),
        (np.zeros((2, 2), np.int32), np.zeros((2, 2), np.int32), [0.0], "threshold is 0"),
        (np.zeros((2, 2), np.int32), np.zeros((2, 2), np.int32), [1.5], "threshold is 1.5"),
        (np.zeros((2, 2), np.int32), np.zeros((2, 2), np.int32), [float("nan")], "threshold is nan"),
    ],
)
def test_programming_errors_are_named(true, pred, ious, words):
    with pytest.raises(ValueError, match=words):
        match_counts(true, pred, ious)


def test_outlines_of_sparse_labels_are_seen_as_a_whole():
    dense = _grid()
    label = np.where(dense == 6, 6, -1).astype(np.int32)
    assert match_outlines(label, dense, [0.9])[0] == Counts(iou=0.9, tp=1, sum_matched_score=1.0)
    too_large = np.zeros_like(dense)
    too_large[19:37, 19:37] = 7  # 1.9 times the cell, less than half of it on unlabelled pixels
    assert match_counts(label, too_large, [0.9])[0].tp == 1
    half, most = match_outlines(label, too_large, [0.5, 0.7])
    assert (half.tp, most.tp) == (1, 0)
    too_large[19:45, 19:45] = 7  # more than half
    found = match_outlines(label, too_large, [0.5])[0]
    assert (found.tp, found.fp, found.fn) == (0, 0, 1)


def test_outlines_of_dense_labels_are_all_there_is():
    true = _grid()
    pred = np.roll(true, 2)
    assert match_outlines(true, pred) == match_counts(true, pred)
    assert match_outlines(true, 2**30 + true) == match_counts(true, 2**30 + true)
    with pytest.raises(ValueError, match="shape"):
        match_outlines(true, pred[1:])
    with pytest.raises(ValueError, match="-1"):
        match_outlines(true, pred - 1)


def test_inputs_are_not_changed():
    true, pred = _grid(), np.roll(_grid(), 2)
    true[:3] = -1
    before = true.copy(), pred.copy()
    for array in (true, pred):
        array.flags.writeable = False
    match_counts(true, pred)
    match_outlines(true, pred)
    assert (true == before[0]).all()
    assert (pred == before[1]).all()


def test_many_touching_cells_stay_sparse():
    """30,000 cells that all overlap their neighbours: a dense matrix would hold 7 GB."""
    y, x = np.mgrid[:1040, :1040]
    true = (y // 6 * 174 + x // 6 + 1).astype(np.int32)
    pred = np.roll(true, (1, 2), axis=(0, 1))
    start = time.process_time()
    low, high = match_counts(true, pred, [0.3, 0.5])
    assert time.process_time() - start < 20
    assert low.tp > 29_000
    assert low.tp >= high.tp
    assert low.tp + low.fn == len(np.unique(true))


def test_the_score_is_the_message():
    message = total_scores([(_grid(), _grid())], [0.5])[0].to_message()
    assert (message.iou, message.tp, message.f1, message.ap, message.pq) == (0.5, 16, 1.0, 1.0, 1.0)


def _grid():
    y, x = np.mgrid[:64, :64]
    label = (y // 16 * 4 + x // 16 + 1).astype(np.int32)
    label[(y % 16 < 3) | (x % 16 < 3)] = 0
    return label
