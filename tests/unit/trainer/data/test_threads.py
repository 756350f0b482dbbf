"""Work on items in threads: in order, a few ahead, and failing at the item's turn."""

import threading

import pytest
from support.limits import PATIENCE

from cellsparse_trainer.data.threads import AHEAD, in_threads


@pytest.mark.parametrize("threads", [None, 1, 4])
def test_results_come_in_the_order_of_the_inputs(threads):
    assert list(in_threads(lambda n: n * n, range(50), threads)) == [n * n for n in range(50)]
    assert list(in_threads(str, [], threads)) == []


def test_several_are_made_at_once():
    meeting = threading.Barrier(3)
    assert list(in_threads(lambda _: meeting.wait(PATIENCE) >= 0, range(6), 3)) == [True] * 6


def test_only_a_few_are_made_ahead():
    begun = []
    results = in_threads(begun.append, range(1000), 2)
    next(results)
    assert len(begun) <= 2 * AHEAD + 1
    results.close()
    assert len(begun) < 20


def test_what_fails_is_raised_at_its_turn_and_ends_the_rest():
    begun = []

    def make(number):
        begun.append(number)
        if number == 3:
            raise ValueError("item 3 is damaged")
        return number

    results = in_threads(make, range(1000), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3"):
        next(results)
    assert len(begun) < 20
