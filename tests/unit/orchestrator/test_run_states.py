"""Legal changes of state, pauses and names."""

import itertools

import pytest

from cellsparse_orchestrator import run_states
from cellsparse_proto.v1 import common_pb2

ALL = [value for value in common_pb2.RunState.values() if value]


def test_final_states_are_left_by_nothing():
    for old, new in itertools.product(run_states.FINAL, ALL):
        if old != new:
            with pytest.raises(ValueError, match="cannot go"):
                run_states.check_change(old, new)


def test_every_state_that_is_not_final_can_be_cancelled_and_fail():
    for old in set(ALL) - run_states.FINAL:
        run_states.check_change(old, run_states.CANCELLED)
        run_states.check_change(old, run_states.FAILED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (run_states.QUEUED, run_states.RUNNING),
        (run_states.QUEUED, run_states.SUCCEEDED),
        (run_states.RETRYING, run_states.RUNNING),
        (run_states.RUNNING, run_states.QUEUED),
        (run_states.RUNNING, run_states.STARTING),
    ],
)
def test_shortcuts_are_illegal(old, new):
    with pytest.raises(ValueError, match=run_states.state_name(new)):
        run_states.check_change(old, new)


def test_names_come_back():
    for state in ALL:
        assert run_states.state_number(run_states.state_name(state)) == state
    for reason in common_pb2.FailureReason.values():
        assert run_states.reason_number(run_states.reason_name(reason)) == reason
    assert run_states.reason_name(common_pb2.FAILURE_REASON_UNSPECIFIED) == ""


def test_pauses_double_up_to_the_limit():
    assert [run_states.backoff(failures, 1.0, 6.0) for failures in (1, 2, 3, 4, 5000)] == [1, 2, 4, 6, 6]
