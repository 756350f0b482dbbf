"""Calls that a busy server refuses are repeated when it says, and not for ever."""

import pytest

from cellsparse_common.errors import Busy, ResourceExhausted, Unavailable
from cellsparse_common.rpc.retries import repeated


class Server:
    """Refuses with some errors, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.slept = []

    def __call__(self, seconds):
        assert seconds > 0
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_a_busy_server_is_asked_again_after_its_pause():
    server = Server(Busy("full", retry_seconds=2.0), Busy("full", retry_seconds=0.0))
    assert repeated(server, 60.0, server.slept.append) == "answer"
    first, second = server.slept
    assert 2.0 <= first <= 2.5
    assert 0.05 <= second <= 0.1


def test_a_pause_beyond_the_deadline_is_not_waited_for():
    server = Server(Busy("full", retry_seconds=30.0))
    with pytest.raises(Busy):
        repeated(server, 20.0, server.slept.append)
    assert not server.slept


@pytest.mark.parametrize("error", [ResourceExhausted("too large"), Unavailable("away")])
def test_other_errors_are_not_repeated(error):
    server = Server(error)
    with pytest.raises(type(error)):
        repeated(server, 60.0, server.slept.append)
    assert not server.slept
