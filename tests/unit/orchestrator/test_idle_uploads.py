"""Uploads that pause for too long are ended."""

import threading

import pytest

from cellsparse_common.errors import DeadlineExceeded, InvalidArgument
from cellsparse_orchestrator.catalogue.spooling import not_idle


def test_messages_pass_in_their_order():
    assert list(not_idle(iter(range(100)), 60)) == list(range(100))


def test_what_the_stream_raises_is_raised():
    def stream():
        yield 1
        raise InvalidArgument("no", "x")

    found = []
    with pytest.raises(InvalidArgument, match="no"):
        found.extend(not_idle(stream(), 60))


def test_a_pause_ends_the_upload():
    over = threading.Event()

    def stream():
        yield 1
        over.wait(60)

    messages = not_idle(stream(), 0.2)
    assert next(messages) == 1
    with pytest.raises(DeadlineExceeded, match=r"sent nothing for 0\.2 s"):
        next(messages)
    over.set()


def test_time_in_which_nothing_is_asked_for_is_no_pause():
    messages = not_idle(iter([1, 2, 3]), 0.2)
    assert next(messages) == 1
    threading.Event().wait(0.5)
    assert list(messages) == [2, 3]
