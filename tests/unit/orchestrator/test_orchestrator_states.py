"""Legal changes of state, pauses and names."""

import itertools

import pytest

from cellsparse_orchestrator import states
from cellsparse_proto.v1 import common_pb2

ALL = [value for value in common_pb2.RunState.values() if value]


def test_final_states_are_left_by_nothing():
    for old, new in itertools.product(states.FINAL, ALL):
        if old != new:
            with pytest.raises(ValueError, match="cannot go"):
                states.check_change(old, new)


def test_every_state_that_is_not_final_can_be_cancelled_and_fail():
    for old in set(ALL) - states.FINAL:
        states.check_change(old, states.CANCELLED)
        states.check_change(old, states.FAILED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (states.QUEUED, states.RUNNING),
        (states.QUEUED, states.SUCCEEDED),
        (states.RETRYING, states.RUNNING),
        (states.RUNNING, states.QUEUED),
        (states.RUNNING, states.STARTING),
    ],
)
def test_shortcuts_are_illegal(old, new):
    with pytest.raises(ValueError, match=states.state_name(new)):
        states.check_change(old, new)


def test_names_come_back():
    for state in ALL:
        assert states.state_number(states.state_name(state)) == state
    for reason in common_pb2.FailureReason.values():
        assert states.reason_number(states.reason_name(reason)) == reason
    assert states.reason_name(common_pb2.FAILURE_REASON_UNSPECIFIED) == ""


def test_pauses_double_up_to_the_limit():
    assert [states.pause_before(failures, 1.0, 6.0) for failures in (1, 2, 3, 4, 5000)] == [1, 2, 4, 6, 6]
