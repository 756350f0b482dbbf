"""For whom a call is passed on, so that projects share a trainer's turns."""

import pytest

from cellsparse_common.rpc.callers import caller_of
from cellsparse_orchestrator.caller import Caller, acting, caller_metadata
from cellsparse_proto.v1 import rules_pb2


class Context:
    """As much of a call's context as is looked at."""

    def __init__(self, peer, metadata=()):
        self._peer, self._metadata = peer, metadata

    def peer(self):
        return self._peer

    def invocation_metadata(self):
        return self._metadata


def passed_on(caller, port=1):
    with acting(caller):
        said = caller_metadata(Context(f"ipv4:10.0.0.7:{port}", (("cellsparse-owner", "somebody else"),)))
    return caller_of(Context("ipv4:10.0.0.9:2", said))


@pytest.mark.parametrize(
    ("role", "project", "owner"),
    [
        (rules_pb2.ROLE_READER, "prj-1", "prj-1"),
        (rules_pb2.ROLE_ADMIN, None, "administrator tok-1"),
    ],
)
def test_a_token_s_project_owns_its_calls(role, project, owner):
    caller = Caller(token_id="tok-1", name="n", role=role, project_id=project)
    first, second = passed_on(caller), passed_on(caller, port=2)
    assert first.owner == second.owner == owner
    assert first.member != second.member


def test_without_tokens_the_machine_owns_its_calls():
    assert passed_on(None).owner == "10.0.0.7"
