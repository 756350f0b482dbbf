from itertools import pairwise

import numpy as np
import pytest

from cellsparse_gateway.prompts.model import Model
from cellsparse_gateway.prompts.types import Box, Point, Prompt, best


def labels() -> np.ndarray:
    """Two cells that touch (label numbers 2 and 3), on background (1) and pixels that are not labelled (0)."""
    y, x = np.mgrid[:60, :80]
    out = np.zeros((60, 80), np.uint32)
    out[:, 40:] = 1
    out[np.hypot(y - 30, x - 25) < 12] = 2
    out[(np.hypot(y - 30, x - 45) < 12) & (out != 2)] = 3
    return out


def ask(**shown) -> Prompt:
    return Prompt(image=np.zeros((60, 80), np.uint8), **shown)


def whole(proposal) -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    rows, columns = proposal.mask.shape
    mask[proposal.y : proposal.y + rows, proposal.x : proposal.x + columns] = proposal.mask
    return mask


def test_the_instance_under_a_click_is_shown_first_and_the_wheel_changes_its_size():
    layer = labels()
    found = Model([layer]).propose(ask(points=(Point(x=20.5, y=30.5),)))
    first = best(found)
    assert (whole(found[first]) == (layer == 2)).all()
    assert first == 2
    assert len(found) == 5
    for smaller, larger in pairwise(found):
        assert (whole(larger) | ~whole(smaller)).all()
    assert not any((whole(each) & (layer == 3)).any() for each in found)


@pytest.mark.parametrize(
    "points",
    [
        (Point(x=5, y=5),),
        (Point(x=75, y=5),),
        (Point(x=20, y=30), Point(x=50, y=30)),
        (Point(x=20, y=30), Point(x=25, y=30, positive=False)),
    ],
)
def test_no_instance_is_meant(points):
    (found,) = Model([labels()]).propose(ask(points=points))
    assert not found.mask.size


def test_a_box_means_the_instance_it_cuts_least():
    layer = labels()
    found = Model([layer]).propose(ask(box=Box(left=34, top=17, right=60, bottom=44)))
    assert (whole(found[best(found)]) == (layer == 3)).all() or (whole(found[best(found)]) <= (layer == 3)).all()
    (nothing,) = Model([layer]).propose(ask(box=Box(left=70, top=0, right=80, bottom=5)))
    assert not nothing.mask.size


def test_layers_are_offered_one_after_the_other():
    first, second = labels(), labels()
    second[second == 2] = 0
    second[20:41, 15:36] = 9
    found = Model([first, second]).propose(ask(points=(Point(x=20, y=30),)))
    assert (whole(found[best(found)]) == (first == 2)).all()
    assert any((whole(each) == (second == 9)).all() for each in found)


def test_the_quality_of_an_instance_is_its_score():
    layer = labels()
    click = ask(points=(Point(x=20, y=30),))
    found = Model([layer], lambda place, number: 0.625 if (place, number) == (0, 2) else 0).propose(click)
    assert found[best(found)].quality == 0.625
    assert all(each.quality < 0.625 for each in found if each.level)


def test_a_later_layer_never_comes_first_whatever_its_score():
    first, second = labels(), labels()
    second[20:41, 15:36] = 9
    found = Model([first, second], lambda place, number: (0.3, 0.9)[place]).propose(ask(points=(Point(x=20, y=30),)))
    assert (whole(found[best(found)]) == (first == 2)).all()
    assert found[best(found)].quality == pytest.approx(0.3)


def test_a_layer_of_another_size_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Model([labels()[:10]]).propose(ask(points=(Point(x=20, y=30),)))
