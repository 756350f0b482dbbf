"""The states of a run, the legal changes between them, and the pause before a retry."""

from typing import cast

from cellsparse_proto.v1 import common_pb2

QUEUED = common_pb2.RUN_STATE_QUEUED
STARTING = common_pb2.RUN_STATE_STARTING
RUNNING = common_pb2.RUN_STATE_RUNNING
RETRYING = common_pb2.RUN_STATE_RETRYING
SUCCEEDED = common_pb2.RUN_STATE_SUCCEEDED
FAILED = common_pb2.RUN_STATE_FAILED
CANCELLED = common_pb2.RUN_STATE_CANCELLED

FINAL = frozenset({SUCCEEDED, FAILED, CANCELLED})
ACTIVE = frozenset({STARTING, RUNNING, RETRYING})
"""States that hold a slot. A retrying run keeps its slot, unless it waits for the store."""

_NEXT: dict[int, frozenset[int]] = {
    QUEUED: frozenset({STARTING, CANCELLED, FAILED}),
    STARTING: frozenset({RUNNING, RETRYING, *FINAL}),
    RUNNING: frozenset({RETRYING, *FINAL}),
    RETRYING: frozenset({STARTING, CANCELLED, FAILED}),
}

RETRIED = frozenset(
    {
        common_pb2.FAILURE_REASON_LOST,
        common_pb2.FAILURE_REASON_EVICTED,
        common_pb2.FAILURE_REASON_STORAGE,
        common_pb2.FAILURE_REASON_INTERNAL,
    }
)
"""Reasons that another attempt may overcome; all others need a person's help."""

_STATE_PREFIX = "RUN_STATE_"
_REASON_PREFIX = "FAILURE_REASON_"


def check_change(old: int, new: int) -> None:
    """Raise ValueError unless a run in state `old` may go to state `new` (staying is always allowed)."""
    if new != old and new not in _NEXT.get(old, frozenset()):
        raise ValueError(f"a run cannot go from {state_name(old)} to {state_name(new)}")


def state_name(state: int) -> str:
    """Return a state's name without its prefix: "QUEUED"."""
    return common_pb2.RunState.Name(common_pb2.RunState.ValueType(state)).removeprefix(_STATE_PREFIX)


def state_number(name: str) -> "common_pb2.RunState":
    """Return the state with this name; raises ValueError for an unknown one."""
    return cast("common_pb2.RunState", common_pb2.RunState.Value(_STATE_PREFIX + name))


def reason_name(reason: int) -> str:
    """Return a failure reason's name without its prefix; "" for none."""
    name = common_pb2.FailureReason.Name(common_pb2.FailureReason.ValueType(reason)).removeprefix(_REASON_PREFIX)
    return "" if name == "UNSPECIFIED" else name


def reason_number(name: str) -> "common_pb2.FailureReason":
    """Return the failure reason with this name; raises ValueError for an unknown one."""
    return cast("common_pb2.FailureReason", common_pb2.FailureReason.Value(_REASON_PREFIX + (name or "UNSPECIFIED")))


def backoff(failures: int, first: float, limit: float) -> float:
    """Return the pause after a number of failures, seconds: `first`, doubled for every further one, up to `limit`."""
    return min(limit, first * 2.0 ** min(max(failures - 1, 0), 30))
