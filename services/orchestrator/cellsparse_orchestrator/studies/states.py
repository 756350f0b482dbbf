"""The states of studies and of their members, and their names in the database."""

from typing import cast

from cellsparse_proto.v1 import study_pb2

RUNNING = study_pb2.STUDY_STATE_RUNNING
PAUSED = study_pb2.STUDY_STATE_PAUSED
CANCELLING = study_pb2.STUDY_STATE_CANCELLING
SUCCEEDED = study_pb2.STUDY_STATE_SUCCEEDED
FAILED = study_pb2.STUDY_STATE_FAILED
CANCELLED = study_pb2.STUDY_STATE_CANCELLED

FINAL = frozenset({SUCCEEDED, FAILED, CANCELLED})

_NEXT: dict[int, frozenset[int]] = {
    RUNNING: frozenset({PAUSED, CANCELLING, SUCCEEDED, FAILED}),
    PAUSED: frozenset({RUNNING, CANCELLING, SUCCEEDED, FAILED}),
    CANCELLING: frozenset({CANCELLED}),
}

MEMBER_WAITING = study_pb2.MEMBER_STATE_WAITING
MEMBER_TRAINING = study_pb2.MEMBER_STATE_TRAINING
MEMBER_EVALUATING = study_pb2.MEMBER_STATE_EVALUATING
MEMBER_SUCCEEDED = study_pb2.MEMBER_STATE_SUCCEEDED
MEMBER_FAILED = study_pb2.MEMBER_STATE_FAILED
MEMBER_CANCELLED = study_pb2.MEMBER_STATE_CANCELLED

MEMBER_FINAL = frozenset({MEMBER_SUCCEEDED, MEMBER_FAILED, MEMBER_CANCELLED})

_NEXT_OF_MEMBER: dict[int, frozenset[int]] = {
    MEMBER_WAITING: frozenset({MEMBER_TRAINING, MEMBER_FAILED, MEMBER_CANCELLED}),
    MEMBER_TRAINING: frozenset({MEMBER_EVALUATING, MEMBER_FAILED, MEMBER_CANCELLED}),
    MEMBER_EVALUATING: frozenset({MEMBER_SUCCEEDED, MEMBER_FAILED, MEMBER_CANCELLED}),
}

_STUDY_PREFIX = "STUDY_STATE_"
_MEMBER_PREFIX = "MEMBER_STATE_"


def may_change(old: int, new: int) -> bool:
    """Return whether a study in state `old` may go to state `new`."""
    return new in _NEXT.get(old, frozenset())


def member_may_change(old: int, new: int) -> bool:
    """Return whether a member in state `old` may go to state `new`."""
    return new in _NEXT_OF_MEMBER.get(old, frozenset())


def study_name(state: int) -> str:
    """Return a study state's name without its prefix: "RUNNING"."""
    return study_pb2.StudyState.Name(study_pb2.StudyState.ValueType(state)).removeprefix(_STUDY_PREFIX)


def study_number(name: str) -> "study_pb2.StudyState":
    """Return the study state with this name; raises ValueError for an unknown one."""
    return cast("study_pb2.StudyState", study_pb2.StudyState.Value(_STUDY_PREFIX + name))


def member_name(state: int) -> str:
    """Return a member state's name without its prefix: "WAITING"."""
    return study_pb2.MemberState.Name(study_pb2.MemberState.ValueType(state)).removeprefix(_MEMBER_PREFIX)


def member_number(name: str) -> "study_pb2.MemberState":
    """Return the member state with this name; raises ValueError for an unknown one."""
    return cast("study_pb2.MemberState", study_pb2.MemberState.Value(_MEMBER_PREFIX + name))
