"""Threads that wait for one writer: in turn, or one for all."""

import threading
import time

import pytest

from cellsparse_common.errors import NotFound, Unavailable
from cellsparse_orchestrator.db.fair_lock import FairLock
from cellsparse_orchestrator.db.group_commit import GroupCommit

SECONDS = 10.0


def started(*works):
    """Start works one after the other, each when those before it have come to wait."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    return threads


def joined(threads):
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_turns_come_in_the_order_of_asking():
    lock, order = FairLock(), []

    def take(number):
        with lock.hold(SECONDS):
            order.append(number)

    with lock.hold(SECONDS):
        threads = started(*[lambda number=number: take(number) for number in range(5)])
        assert order == []
    joined(threads)
    assert order == list(range(5))


def test_who_is_in_a_hurry_goes_first():
    lock, order = FairLock(), []

    def take(number, urgent):
        with lock.hold(SECONDS, urgent=urgent):
            order.append(number)

    with lock.hold(SECONDS):
        threads = started(*[lambda number=number: take(number, number == 3) for number in range(5)])
    joined(threads)
    assert order == [3, 0, 1, 2, 4]


def test_who_waited_too_long_is_told_and_holds_nobody_up():
    lock, entered = FairLock(), threading.Event()

    def take():
        with lock.hold(SECONDS):
            entered.set()

    with lock.hold(SECONDS):
        with pytest.raises(Unavailable, match=r"busy for 0\.05 s"), lock.hold(0.05):
            pass
        threads = started(take)
    joined(threads)
    assert entered.is_set()


def test_a_turn_ends_with_an_exception():
    lock = FairLock()
    with pytest.raises(ZeroDivisionError), lock.hold(SECONDS):
        raise ZeroDivisionError
    with lock.hold(0.0):
        pass


class Slow:
    """Work whose first piece lasts until the test says so; `done` are the pieces done at once."""

    def __init__(self):
        self.done, self.errors = [], {}
        self.first, self.go_on = threading.Event(), threading.Event()

    def __call__(self, pieces):
        if not self.first.is_set():
            self.first.set()
            assert self.go_on.wait(SECONDS)
        for piece in pieces:
            if piece in self.errors:
                raise self.errors[piece]
        self.done.append(list(pieces))


def handing_in(together, pieces, failed):
    def submit(piece):
        try:
            together.submit(piece, SECONDS)
        except (NotFound, Unavailable) as error:
            failed[piece] = error

    return started(*[lambda piece=piece: submit(piece) for piece in pieces])


def test_what_comes_meanwhile_is_done_at_once_up_to_a_limit():
    slow, failed = Slow(), {}
    threads = handing_in(GroupCommit(slow, 3), range(6), failed)
    assert slow.first.is_set()
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([[0], [1, 2, 3], [4, 5]], {})


def test_an_error_is_raised_where_it_belongs():
    slow, failed = Slow(), {}
    slow.errors = {2: NotFound("There is no 2.")}
    threads = handing_in(GroupCommit(slow, 10), range(4), failed)
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([[0], [1], [3]], slow.errors)


def test_what_is_away_is_away_for_all_and_asked_for_once():
    slow, failed = Slow(), {}
    slow.errors = {2: Unavailable("The database does not answer.")}
    threads = handing_in(GroupCommit(slow, 10), range(4), failed)
    slow.go_on.set()
    joined(threads)
    assert slow.done == [[0]]
    assert set(failed) == {1, 2, 3}


def test_who_gives_up_does_not_stop_the_others():
    slow, failed = Slow(), {}
    together = GroupCommit(slow, 10)
    threads = handing_in(together, [0], failed)
    with pytest.raises(Unavailable, match=r"busy for 0\.05 s"):
        together.submit(1, 0.05)
    threads += handing_in(together, [2], failed)
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([[0], [2]], {})
