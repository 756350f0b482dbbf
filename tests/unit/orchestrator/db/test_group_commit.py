"""Threads that write at the same time: one commits for all."""

import threading

import pytest
from support.limits import PATIENCE
from support.threads import joined, started

from cellsparse_common.errors import NotFound, Unavailable
from cellsparse_orchestrator.db.group_commit import GroupCommit


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


def submitting(group_commit, pieces, failed):
    def submit(piece):
        try:
            group_commit.submit(piece, PATIENCE)
        except (NotFound, Unavailable) as error:
            failed[piece] = error

    return started(*[lambda piece=piece: submit(piece) for piece in pieces])


def test_what_comes_meanwhile_is_done_at_once_up_to_a_limit():
    slow, failed = Slow(), {}
    threads = submitting(GroupCommit(slow, 3), range(6), failed)
    assert slow.first.is_set()
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([[0], [1, 2, 3], [4, 5]], {})


def test_an_error_is_raised_where_it_belongs():
    slow, failed = Slow(), {}
    slow.errors = {2: NotFound("There is no 2.")}
    threads = submitting(GroupCommit(slow, 10), range(4), failed)
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([[0], [1], [3]], slow.errors)


def test_what_is_away_is_away_for_all_and_asked_for_once():
    slow, failed = Slow(), {}
    slow.errors = {2: Unavailable("The database does not answer.")}
    threads = submitting(GroupCommit(slow, 10), range(4), failed)
    slow.go_on.set()
    joined(threads)
    assert slow.done == [[0]]
    assert set(failed) == {1, 2, 3}


def test_who_gives_up_does_not_stop_the_others():
    slow, failed = Slow(), {}
    group_commit = GroupCommit(slow, 10)
    threads = submitting(group_commit, [0], failed)
    with pytest.raises(Unavailable, match=r"busy for 0\.05 s"):
        group_commit.submit(1, 0.05)
    threads += submitting(group_commit, [2], failed)
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([[0], [2]], {})


def test_a_group_is_as_large_as_its_items():
    slow, failed = Slow(), {}
    threads = submitting(GroupCommit(slow, 4, size=len), ["a", "bb", "cc", "dddddd", "e", "fff", "g"], failed)
    slow.go_on.set()
    joined(threads)
    assert (slow.done, failed) == ([["a"], ["bb", "cc"], ["dddddd"], ["e", "fff"], ["g"]], {})
