"""A lock that waiting threads get in their order."""

import threading

import pytest
from support.limits import PATIENCE
from support.threads import joined, started

from cellsparse_common.errors import Unavailable
from cellsparse_orchestrator.db.fair_lock import FairLock


def test_the_lock_is_taken_in_the_order_of_asking():
    lock, order = FairLock(), []

    def take(number):
        with lock.hold(PATIENCE):
            order.append(number)

    with lock.hold(PATIENCE):
        threads = started(*[lambda number=number: take(number) for number in range(5)])
        assert order == []
    joined(threads)
    assert order == list(range(5))


def test_the_urgent_go_first():
    lock, order = FairLock(), []

    def take(number, urgent):
        with lock.hold(PATIENCE, urgent=urgent):
            order.append(number)

    with lock.hold(PATIENCE):
        threads = started(*[lambda number=number: take(number, number == 3) for number in range(5)])
    joined(threads)
    assert order == [3, 0, 1, 2, 4]


def test_a_waiter_that_times_out_is_refused_and_blocks_nobody():
    lock, entered = FairLock(), threading.Event()

    def take():
        with lock.hold(PATIENCE):
            entered.set()

    with lock.hold(PATIENCE):
        with pytest.raises(Unavailable, match=r"busy for 0\.05 s"), lock.hold(0.05):
            pass
        threads = started(take)
    joined(threads)
    assert entered.is_set()


def test_an_exception_releases_the_lock():
    lock = FairLock()
    with pytest.raises(ZeroDivisionError), lock.hold(PATIENCE):
        raise ZeroDivisionError
    with lock.hold(0.0):
        pass
