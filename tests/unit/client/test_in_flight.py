"""Calls at the same time: never more than allowed, results in order, inputs read no further ahead."""

import threading

import pytest
from support.limits import PATIENCE

from cellsparse.cli.output import LINE_SECONDS, Pace
from cellsparse.in_flight import in_order


def test_as_many_as_allowed_run_and_results_come_in_order():
    together = threading.Barrier(3)
    taken = []

    def inputs():
        for number in range(9):
            taken.append(number)
            yield number

    def work(number):
        together.wait(PATIENCE)  # passes only while three run at the same time
        return number

    results = in_order(work, inputs(), 3)
    assert next(results) == 0
    assert len(taken) == 3
    assert list(results) == list(range(1, 9))


def test_one_by_one_is_lazy():
    done = []
    results = in_order(done.append, iter(range(3)), 1)
    next(results)
    assert done == [0]


def test_an_error_comes_at_its_place():
    def work(number):
        if number == 2:
            raise ValueError(number)
        return number

    results = in_order(work, range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="2"):
        next(results)


def test_the_time_left_is_said_now_and_then():
    times = iter([0.0, 1.0, LINE_SECONDS, LINE_SECONDS + 1, 4 * LINE_SECONDS, 9 * LINE_SECONDS])
    said = []
    pace = Pace("predicting", said.append, lambda: next(times))
    for done in (1, 3, 4, 5, 12):
        pace.update(done, 12)
    assert said == ["predicting: 3 of 12, about 2 min left", "predicting: 5 of 12, about 3 min left"]
