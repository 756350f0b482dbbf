"""Work that blocks does not hold whoever waits for it."""

import threading

import pytest
from support.limits import PATIENCE

from cellsparse_napari.polling import polled


def test_all_arrives_in_its_order():
    assert [one for one in polled(lambda: iter(range(5)), lambda: None) if one is not None] == [0, 1, 2, 3, 4]


def test_an_exception_of_the_work_is_raised():
    def work():
        yield 1
        raise ValueError("broken")

    found = polled(work, lambda: None)
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        list(found)


def test_blocked_work_yields_nothing_but_the_turn_and_is_left():
    left = threading.Event()

    def work():
        left.wait(PATIENCE)
        yield 1

    found = polled(work, left.set)
    assert next(found) is None
    found.close()
    assert left.is_set()


def test_finished_work_is_not_left():
    left = threading.Event()
    list(polled(lambda: iter(()), left.set))
    assert not left.is_set()
