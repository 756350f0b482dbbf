"""Who makes a call, as its connection and a service between say."""

import pytest

from cellsparse_common.rpc.callers import Caller, caller_of, connection_of, source


class Context:
    """As much of a call's context as is looked at."""

    def __init__(self, peer, metadata=()):
        self._peer, self._metadata = peer, metadata

    def peer(self):
        return self._peer

    def invocation_metadata(self):
        return self._metadata


@pytest.mark.parametrize(
    ("peer", "metadata", "found"),
    [
        ("ipv4:10.0.0.7:4711", {}, "10.0.0.7"),
        ("ipv6:[::1]:4711", {}, "::1"),
        ("unix:/run/socket", {}, "unix:/run/socket"),
        ("ipv4:10.0.0.7:4711", {"x-forwarded-for": "192.0.2.1"}, "192.0.2.1 by 10.0.0.7"),
    ],
)
def test_the_source_of_a_call(peer, metadata, found):
    assert source(metadata, peer) == found


def test_connections_of_one_machine_have_one_owner():
    first, second = (connection_of(Context(f"ipv4:10.0.0.7:{port}")) for port in (1, 2))
    assert first.owner == second.owner == "10.0.0.7"
    assert first.member != second.member


def test_a_service_between_says_for_whom_it_calls():
    caller = Caller("prj-1", "prj-1 ipv4:10.0.0.7:1")
    assert caller_of(Context("ipv4:10.0.0.9:2", caller.to_metadata())) == caller
    assert caller_of(Context("ipv4:10.0.0.9:2")).owner == "10.0.0.9"
    long = Caller("ü" * 1000, "m")
    assert caller_of(Context("ipv4:10.0.0.9:2", long.to_metadata())).owner == "?" * 200
    # A client of the orchestrator cannot say who it is.
    assert connection_of(Context("ipv4:10.0.0.9:2", caller.to_metadata())).owner == "10.0.0.9"
