"""Properties that every choice keeps, and what each method prefers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scenes import scene

from cellsparse_sparsifier.suggest.by_error import error_weight
from cellsparse_sparsifier.suggest.candidates import Candidates, Seen, find_candidates
from cellsparse_sparsifier.suggest.choose import Method, suggest
from cellsparse_sparsifier.suggest.features import NAMES
from cellsparse_sparsifier.suggest.patches import BACKGROUND, CELL, Patch
from cellsparse_sparsifier.suggest.pool import MOST_AN_IMAGE, make_pool
from cellsparse_sparsifier.suggest.typical import choose_typical

EVERY = pytest.mark.parametrize("method", list(Method))


def drawn_at_random(name, count, seed, labelled=0):
    """Candidates with random features."""
    random = np.random.default_rng([seed, len(name)])
    return Candidates(
        name=name,
        features=random.normal(size=(count, len(NAMES))),
        intensity=random.uniform(0, 100, count),
        disagreement=random.uniform(0, 1, count),
        seen=tuple(random.choice(list(Seen)) for _ in range(count)),
        patches=tuple(Patch(x=index, y=0, values=np.ones((2, 2), np.uint8)) for index in range(count)),
        labelled=random.normal(size=(labelled, len(NAMES))),
        spots=((Patch(x=0, y=9, values=np.full((3, 3), 2, np.uint8)), 0.5),) if count else (),
    )


@EVERY
@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), max_size=6),
    count=st.integers(1, 20),
    backgrounds=st.integers(0, 4),
    seed=st.integers(0, 3),
    labelled=st.integers(0, 3),
)
def test_rules_of_every_choice(method, sizes, count, backgrounds, seed, labelled):
    images = [drawn_at_random("i" * (index + 1), size, seed, labelled) for index, size in enumerate(sizes)]
    found = suggest(images, method=method, count=count, backgrounds=backgrounds, seed=seed, predicted=True)
    cells = [each for each in found if each.cell]
    possible = sum(min(size, MOST_AN_IMAGE) for size in sizes)
    assert len(cells) == min(count, possible)
    per_image = [sum(each.image == name.name for each in cells) for name in images]
    assert max(per_image, default=0) <= MOST_AN_IMAGE
    assert len({(each.image, each.patch.x) for each in cells}) == len(cells)
    spots = [each for each in found if not each.cell]
    assert len({each.image for each in spots}) == len(spots) == min(backgrounds, sum(size > 0 for size in sizes))
    assert all(each.reason.endswith(".") and 0 <= each.score <= 1 for each in found)
    again = suggest(images, method=method, count=count, backgrounds=backgrounds, seed=seed, predicted=True)
    assert [(each.image, each.patch.x, each.reason) for each in again] == [
        (each.image, each.patch.x, each.reason) for each in found
    ]


def test_auto_goes_by_the_prediction():
    images = [drawn_at_random(name, 9, 0, labelled=2) for name in ("a", "bb", "ccc")]
    for predicted, method in ((True, Method.ERRORS), (False, Method.TYPICAL)):
        auto = suggest(images, method=Method.AUTO, count=4, predicted=predicted)
        asked = suggest(images, method=method, count=4, predicted=predicted)
        assert [each.patch.x for each in auto] == [each.patch.x for each in asked]


def test_minmax_takes_the_ends_in_turn():
    image = replace(drawn_at_random("a", 3, 0), intensity=np.array([5.0, 1.0, 9.0]))
    found = suggest([image], method=Method.MINMAX, count=2)
    assert [each.patch.x for each in found] == [1, 2]
    assert "darkest" in found[0].reason
    assert "brightest" in found[1].reason


def test_random_differs_by_seed():
    images = [drawn_at_random("i" * (index + 1), 30, 0) for index in range(8)]
    draws = {tuple(each.patch.x for each in suggest(images, method=Method.RANDOM, count=6, seed=s)) for s in range(4)}
    assert len(draws) == 4


def test_typical_takes_one_of_each_kind_of_image_and_leaves_known_kinds():
    def kind(name, centre, count=10, labelled=0):
        random = np.random.default_rng(len(name))
        image = drawn_at_random(name, count, 0)
        features = random.normal(centre, 0.05, (count, len(NAMES)))
        return replace(image, features=features, labelled=features[:labelled])

    images = [kind("a", 0), kind("bb", 0.1), kind("ccc", 4), kind("dddd", -4)]
    found = suggest(images, method=Method.TYPICAL, count=3)
    assert {each.image for each in found} & {"a", "bb"}
    assert {"ccc", "dddd"} <= {each.image for each in found}
    # With "ccc" known, two cells come from the other kinds.
    images[2] = kind("ccc", 4, labelled=2)
    choice = choose_typical(make_pool(images), 2, 0)
    assert {images[int(choice.pool.image[index])].name for index in choice.chosen} & {"dddd"}
    assert "ccc" not in {images[int(choice.pool.image[index])].name for index in choice.chosen}


def test_with_many_labels_errors_count_and_with_few_they_do_not():
    random = np.random.default_rng(0)
    image = replace(
        drawn_at_random("a", 40, 0, labelled=1),
        features=random.normal(size=(40, len(NAMES))),
        disagreement=np.where(np.arange(40) == 7, 0.9, 0.01),
        seen=(Seen.BOTH,) * 40,
    )
    (first,) = suggest([image], method=Method.ERRORS, count=1, labelled=64)
    assert first.patch.x == 7
    assert "disagree by 0.90" in first.reason
    few = suggest([image], method=Method.ERRORS, count=1, labelled=2)
    other = replace(image, disagreement=np.zeros(40))
    assert few[0].patch.x == suggest([other], method=Method.ERRORS, count=1, labelled=2)[0].patch.x
    assert [error_weight(number) for number in (0, 8, 64, 1000)] == [0, 0, 1, 1]
    assert 0 < error_weight(20) < 1


def test_a_batch_of_errors_is_not_all_alike():
    features = np.zeros((20, len(NAMES)))
    features[10:] = 3.0
    features += np.random.default_rng(0).normal(0, 0.01, features.shape)
    images = [
        replace(
            drawn_at_random("i" * (index + 1), 20, 0),
            features=features,
            disagreement=np.where(np.arange(20) < 10, 0.6, 0.5),
            seen=(Seen.BOTH,) * 20,
        )
        for index in range(3)
    ]
    found = suggest(images, method=Method.ERRORS, count=2, labelled=100)
    assert len({each.patch.x >= 10 for each in found}) == 2


def test_real_pixels_give_cells_inside_the_image_that_nobody_has_labelled():
    images, labels = [], {}
    for number in range(5):
        pixels, label = scene(number, brightness=0.3 + 0.2 * number)
        annotation = np.where(label == 1, 1, -1).astype(np.int32)
        labels[f"n{number}"] = (label, annotation)
        images.append(find_candidates(f"n{number}", pixels, annotation, [label, np.roll(label, 2, 0)]))
    for method in Method:
        found = suggest(images, method=method, count=9, backgrounds=3, predicted=True)
        assert len([each for each in found if each.cell]) == 9
        for each in found:
            label, annotation = labels[each.image]
            rows = slice(each.patch.y, each.patch.y + each.patch.values.shape[0])
            columns = slice(each.patch.x, each.patch.x + each.patch.values.shape[1])
            assert (annotation[rows, columns][each.patch.values > 0] == -1).all()
            if each.cell:
                mask = np.zeros(label.shape, bool)
                mask[rows, columns] = each.patch.values == CELL
                assert not np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any()
            else:
                assert not (label[rows, columns][each.patch.values == BACKGROUND] > 0).any()
