"""Convert rows of studies and members to protos, and change members."""

from typing import cast

from google.protobuf import json_format
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator.caller import visible
from cellsparse_orchestrator.clock import optional_timestamp, timestamp
from cellsparse_orchestrator.db.tables import StudyMemberRow, StudyRow
from cellsparse_orchestrator.studies import states
from cellsparse_proto.v1 import common_pb2, study_pb2


def find_study(session: Session, study_id: str, *, lock: bool = False) -> StudyRow:
    """Return a study's row; with `lock`, locked until the transaction ends. Raises NotFound."""
    query = select(StudyRow).where(StudyRow.id == study_id, visible(StudyRow))
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"There is no study {study_id!r}.")
    return row


def find_member(session: Session, study_id: str, number: int) -> StudyMemberRow:
    """Return a member's row."""
    return session.get_one(StudyMemberRow, (study_id, number))


def change_member(study: StudyRow, row: StudyMemberRow, member: study_pb2.StudyMember) -> bool:
    """Store a member in its new state, as the study's next change.

    Args:
        study: The study, locked by the transaction.
        row: The member's row.
        member: The member with its new state.

    Returns:
        False if the member's stored state does not allow the new one, because another thread was faster. Nothing is
        stored then.
    """
    if not states.member_may_change(states.member_number(row.state), member.state):
        return False
    study.sequence += 1
    row.sequence = study.sequence
    row.state = states.member_name(member.state)
    row.summary = json_format.MessageToJson(member, indent=None)
    return True


def to_member(row: StudyMemberRow) -> study_pb2.StudyMember:
    """Return a row's member."""
    return json_format.Parse(row.summary, study_pb2.StudyMember(), ignore_unknown_fields=True)


def to_grid(row: StudyRow) -> study_pb2.StudyGrid:
    """Return a study's grid."""
    return json_format.Parse(row.grid, study_pb2.StudyGrid(), ignore_unknown_fields=True)


def to_study(session: Session, row: StudyRow) -> study_pb2.Study:
    """Return a row's study with the number of members in each state."""
    query = select(StudyMemberRow.state, func.count()).where(StudyMemberRow.study_id == row.id)
    counted = session.execute(query.group_by(StudyMemberRow.state))
    counts = {name.lower(): count for name, count in counted.tuples()}
    return study_pb2.Study(
        id=row.id,
        name=row.name,
        dataset_id=row.dataset_id,
        grid=to_grid(row),
        split=cast("common_pb2.Split", common_pb2.Split.Value(f"SPLIT_{row.split}")),
        priority=row.priority,
        max_attempts=row.max_attempts,
        state=states.study_number(row.state),
        message=row.message or _message(counts),
        sequence=row.sequence,
        created_at=timestamp(row.created_at),
        ended_at=optional_timestamp(row.ended_at),
        members=sum(counts.values()),
        **counts,
    )


def _message(counts: dict[str, int]) -> str:
    """Return a message about a study's progress."""
    ended = sum(counts.get(states.member_name(state).lower(), 0) for state in states.MEMBER_FINAL)
    parts = [f"{ended} of {sum(counts.values())} members have ended"]
    parts += [f"{counts[name]} {word}" for name, word in _SHOWN if counts.get(name)]
    return ", ".join(parts)


_SHOWN = (("training", "queued or training"), ("evaluating", "being scored"), ("failed", "failed"))
