"""Threads that wait for one writer: in turn, or one for all."""

import threading
import time

import pytest
from support.limits import PATIENCE

from cellsparse_common.errors import NotFound, Unavailable
from cellsparse_orchestrator.db.fair_lock import Turns
from cellsparse_orchestrator.db.group_commit import Together


def started(*works):
    """Start works one after the other, each when those before it have come to wait."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    return threads


def joined(threads):
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_turns_come_in_the_order_of_asking():
    turns, order = Turns(), []

    def take(number):
        with turns.turn(PATIENCE):
            order.append(number)

    with turns.turn(PATIENCE):
        threads = started(*[lambda number=number: take(number) for number in range(5)])
        assert order == []
    joined(threads)
    assert order == list(range(5))


def test_who_is_in_a_hurry_goes_first():
    turns, order = Turns(), []

    def take(number, urgent):
        with turns.turn(PATIENCE, urgent=urgent):
            order.append(number)

    with turns.turn(PATIENCE):
        threads = started(*[lambda number=number: take(number, number == 3) for number in range(5)])
    joined(threads)
    assert order == [3, 0, 1, 2, 4]


def test_who_waited_too_long_is_told_and_holds_nobody_up():
    turns, entered = Turns(), threading.Event()

    def take():
        with turns.turn(PATIENCE):
            entered.set()

    with turns.turn(PATIENCE):
        with pytest.raises(Unavailable, match=r"busy for 0\.05 s"), turns.turn(0.05):
            pass
        threads = started(take)
    joined(threads)
    assert entered.is_set()


def test_a_turn_ends_with_an_exception():
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.turn(PATIENCE):
        raise ZeroDivisionError
    with turns.turn(0.0):
        pass


class Slow:
    """Work whose first piece lasts until the test says so; `done` are the pieces done at once."""

    def __init__(self):
        self.done, self.errors = [], {}
        self.first, self.go_on = threading.Event(), threading.Event()

    def __call__(self, pieces):
        if not self.first.is_set():
            self.first.set()
            assert self.go_on.wait(PATIENCE)
        for piece in pieces:
            if piece in self.errors:
                raise self.errors[piece]
        self.done.append(list(pieces))


def handing_in(together, pieces, failed):
    def hand_in(piece):
        try:
            together.hand_in(piece, PATIENCE)
        except (NotFound, Unavailable) as error:
            failed[piece] = error

    return started(*[lambda piece=piece: hand_in(piece) for piece in pieces])


def test_what_comes_meanwhile_is_done_at_once_up_to_a_limit():
    slow, failed = Slow(), {}
    threads = handing_in(Together(slow, 3), range(6), failed)
    assert slow.first.is_set()
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([[0], [1, 2, 3], [4, 5]], {})


def test_an_error_is_raised_where_it_belongs():
    slow, failed = Slow(), {}
    slow.errors = {2: NotFound("There is no 2.")}
    threads = handing_in(Together(slow, 10), range(4), failed)
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([[0], [1], [3]], slow.errors)


def test_what_is_away_is_away_for_all_and_asked_for_once():
    slow, failed = Slow(), {}
    slow.errors = {2: Unavailable("The database does not answer.")}
    threads = handing_in(Together(slow, 10), range(4), failed)
    slow.go_on.set()
    joined(threads)
    assert slow.done == [[0]]
    assert set(failed) == {1, 2, 3}


def test_who_gives_up_does_not_stop_the_others():
    slow, failed = Slow(), {}
    together = Together(slow, 10)
    threads = handing_in(together, [0], failed)
    with pytest.raises(Unavailable, match=r"busy for 0\.05 s"):
        together.hand_in(1, 0.05)
    threads += handing_in(together, [2], failed)
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([[0], [2]], {})
