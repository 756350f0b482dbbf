"""Items that nobody waits for are committed together, in order, and a bad one stands in nobody's way."""

import threading
from contextvars import ContextVar

import pytest
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_common.errors import NotFound, Unavailable
from cellsparse_orchestrator.db.group_writer import GroupWriter


class Table:
    """Where items are committed to, once `go` is set."""

    def __init__(self, most=100, **options):
        self.go, self.asked = threading.Event(), threading.Event()
        self.groups = []
        self.bad = {}
        self.writer = GroupWriter(self.commit, most, "test", **options)

    def commit(self, items):
        self.asked.set()
        assert self.go.wait(PATIENCE)
        for item in items:
            if item in self.bad:
                raise self.bad[item]
        self.groups.append(list(items))

    def post_behind_the_first(self, *items):
        """Post an item, and more while it is being committed."""
        first = self.writer.post(0)
        assert self.asked.wait(PATIENCE)
        return [first, *map(self.writer.post, items)]


def test_items_that_come_during_a_commit_form_the_next_group():
    table = Table(most=3)
    futures = table.post_behind_the_first(1, 2, 3, 4)
    assert not any(future.done() for future in futures)
    table.go.set()
    assert [future.result(PATIENCE) for future in futures] == [None] * 5
    assert table.groups == [[0], [1, 2, 3], [4]]


def test_a_group_is_as_large_as_its_items():
    table = Table(most=4, size=lambda item: len(str(item)))
    futures = table.post_behind_the_first("bb", "cc", "dddddd", "e", "fff", "g")
    table.go.set()
    assert [future.result(PATIENCE) for future in futures] == [None] * 7
    assert table.groups == [[0], ["bb", "cc"], ["dddddd"], ["e", "fff"], ["g"]]


def test_a_bad_item_stands_in_nobodys_way():
    table = Table()
    table.bad[2] = ValueError("two")
    futures = table.post_behind_the_first(1, 2, 3)
    table.go.set()
    errors = [future.exception(PATIENCE) for future in futures]
    assert errors == [None, None, table.bad[2], None]
    assert table.groups == [[0], [1], [3]]


def test_a_database_that_is_away_is_asked_once_for_all():
    table = Table()
    table.bad[2] = Unavailable("The database is away.")
    futures = table.post_behind_the_first(1, 2, 3)
    table.go.set()
    assert [future.exception(PATIENCE) is not None for future in futures] == [False, True, True, True]
    table.bad.clear()
    assert table.writer.post(4).result(PATIENCE) is None


def test_an_item_that_is_taken_back_in_time_is_left_out():
    table = Table()
    first, second, third = table.post_behind_the_first(1, 2)
    assert second.cancel()
    table.go.set()
    assert third.result(PATIENCE) is None
    assert table.groups == [[0], [2]]
    assert not first.cancel()


def test_the_thread_ends_when_nothing_comes_and_another_one_follows(monkeypatch):
    monkeypatch.setattr("cellsparse_orchestrator.db.group_writer._IDLE_SECONDS", 0.01)
    table = Table()
    table.go.set()
    for number in range(3):
        table.writer.post(number).result(PATIENCE)
        until(lambda: not table.writer._running)
    assert table.groups == [[0], [1], [2]]


def test_an_error_is_raised_where_it_belongs():
    table = Table()
    table.go.set()
    table.bad["two"] = NotFound("There is no two.")
    with pytest.raises(NotFound, match=r"There is no two\."):
        table.writer.submit("two", PATIENCE)
    table.writer.submit("three", PATIENCE)
    assert table.groups == [["three"]]


def test_who_waits_is_told_when_that_takes_too_long():
    table = Table()
    (first,) = table.post_behind_the_first()
    with pytest.raises(Unavailable, match=r"busy for 0\.01 s"):
        table.writer.submit(1, 0.01)
    table.go.set()
    table.writer.submit(2, PATIENCE)
    assert first.done()
    assert table.groups == [[0], [2]]


def test_a_commit_has_the_context_of_its_first_item():
    trace = ContextVar("trace", default="")
    seen = []
    writer = GroupWriter(lambda items: seen.append((items, trace.get())), 100, "test")
    for name in ("one", "other"):
        trace.set(name)
        writer.submit(name, PATIENCE)
    assert seen == [(["one"], "one"), (["other"], "other")]
