"""The tables of studies and members from the clients' side: create, get, list, changes, pause, cancel, delete."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf import json_format
from sqlalchemy import select

from cellsparse_common.errors import AlreadyExists, FailedPrecondition
from cellsparse_orchestrator.caller import request_key, visible
from cellsparse_orchestrator.catalogue.datasets import find_dataset
from cellsparse_orchestrator.catalogue.limits import check_runs
from cellsparse_orchestrator.catalogue.models import find_model
from cellsparse_orchestrator.clock import new_id, now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import StudyMemberRow, StudyRow
from cellsparse_orchestrator.notifier import STUDIES, Notifier
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_orchestrator.runs.new_runs import DEFAULT_ATTEMPTS
from cellsparse_orchestrator.studies import states
from cellsparse_orchestrator.studies.rows import find_study, to_member, to_study
from cellsparse_proto.v1 import common_pb2, study_pb2, trainer_pb2

_FINAL = [states.study_name(state) for state in states.FINAL]


@dataclass(frozen=True, kw_only=True)
class PlannedMember:
    """A member to create."""

    member: study_pb2.StudyMember
    """Without number, run id and state."""
    settings: trainer_pb2.TrainingSettings


class Studies:
    """The tables of studies and members, from the clients' side."""

    def __init__(self, database: Database, notifier: Notifier) -> None:
        self._database = database
        self._notifier = notifier

    def find_request(self, request: study_pb2.CreateStudyRequest) -> study_pb2.Study | None:
        """Return the study that an earlier call with this `request_id` made; None if there was no such call.

        Raises:
            AlreadyExists: The earlier call had other content.
        """
        if not request.request_id:
            return None
        with self._database.read() as session:
            row = session.scalar(select(StudyRow).where(StudyRow.request_id == request_key(request.request_id)))
            if row is None:
                return None
            if row.request_sha256 != _digest(request):
                raise AlreadyExists(
                    f"request_id {request.request_id!r} made study {row.id} with other content; use a new request_id.",
                    "request_id",
                )
            if row.deleted_at is not None:
                raise FailedPrecondition(
                    f"request_id {request.request_id!r} made study {row.id}, which is deleted; undelete it, or use a "
                    "new request_id.",
                    "request_id",
                )
            return to_study(session, row)

    def add(
        self,
        name: str,
        request: study_pb2.CreateStudyRequest,
        grid: study_pb2.StudyGrid,
        planned: Iterable[PlannedMember],
    ) -> study_pb2.Study:
        """Create a study with all its members; each gets the id of its future run.

        Args:
            name: Name for people.
            request: The client's request.
            grid: The request's grid, filled.
            planned: Its members in order.

        Raises:
            NotFound: The dataset, or a model to start from, has just been deleted.
            ResourceExhausted: Its project has used up a quota.
        """
        study = StudyRow(
            id=new_id("study"),
            request_id=request_key(request.request_id),
            request_sha256=_digest(request),
            name=name,
            dataset_id=request.dataset_id,
            grid=json_format.MessageToJson(grid, indent=None),
            split=common_pb2.Split.Name(request.split or common_pb2.SPLIT_TEST).removeprefix("SPLIT_"),
            priority=request.priority,
            max_attempts=request.max_attempts if request.HasField("max_attempts") else DEFAULT_ATTEMPTS,
            state=states.study_name(states.RUNNING),
            message="",
            sequence=0,
            created_at=now(),
        )
        with self._database.write() as session:
            study.project_id = find_dataset(session, request.dataset_id, lock=True).project_id
            check_runs(session, study.project_id, 1)
            planned = list(planned)
            for model_id in sorted({each.settings.initial_model for each in planned} - {""}):
                find_model(session, model_id, lock=True)  # not deleted meanwhile
            session.add(study)
            session.flush()
            for number, entry in enumerate(planned, start=1):
                session.add(_member_row(study, number, entry))
            study.sequence += 1
            session.flush()
            made = to_study(session, study)
        self._notifier.notify(STUDIES)
        return made

    def get(self, study_id: str) -> study_pb2.Study:
        """Return a study; raises NotFound."""
        with self._database.read() as session:
            return to_study(session, find_study(session, study_id))

    def page(self, page: common_pb2.PageRequest) -> tuple[list[study_pb2.Study], str]:
        """Return a page, newest first, and the token of the next one."""
        before = decode_token("studies", page.page_token)
        query = select(StudyRow).where(visible(StudyRow))
        query = query.order_by(StudyRow.number.desc()).limit(page_size(page) + 1)
        if before is not None:
            query = query.where(StudyRow.number < before)
        with self._database.read() as session:
            rows = list(session.scalars(query))
            shown = rows[: page_size(page)]
            studies = [to_study(session, row) for row in shown]
        return studies, encode_token("studies", shown[-1].number) if len(rows) > len(shown) else ""

    def members_page(
        self, study_id: str, page: common_pb2.PageRequest, chosen: Sequence[int]
    ) -> tuple[list[study_pb2.StudyMember], str]:
        """Return a page of members in order, all or those in chosen states, and the token of the next page."""
        after = decode_token("members", page.page_token) or 0
        query = select(StudyMemberRow).where(StudyMemberRow.study_id == study_id, StudyMemberRow.number > after)
        if chosen:
            query = query.where(StudyMemberRow.state.in_([states.member_name(state) for state in chosen]))
        with self._database.read() as session:
            find_study(session, study_id)
            rows = list(session.scalars(query.order_by(StudyMemberRow.number).limit(page_size(page) + 1)))
        shown = rows[: page_size(page)]
        token = encode_token("members", shown[-1].number) if len(rows) > len(shown) else ""
        return [to_member(row) for row in shown], token

    def members(self, study_id: str) -> list[study_pb2.StudyMember]:
        """Return all members in order."""
        query = select(StudyMemberRow).where(StudyMemberRow.study_id == study_id).order_by(StudyMemberRow.number)
        with self._database.read() as session:
            return [to_member(row) for row in session.scalars(query)]

    def changes(self, study_id: str, after: int, most: int = 200) -> study_pb2.WatchStudyResponse:
        """Return a study with the first members that changed after a sequence number; raises NotFound."""
        query = (
            select(StudyMemberRow)
            .where(StudyMemberRow.study_id == study_id, StudyMemberRow.sequence > after)
            .order_by(StudyMemberRow.sequence)
            .limit(most)
        )
        with self._database.read() as session:
            study = find_study(session, study_id)
            rows = list(session.scalars(query))
            return study_pb2.WatchStudyResponse(
                study=to_study(session, study),
                members=[to_member(row) for row in rows],
                sequence=rows[-1].sequence if len(rows) == most else study.sequence,
            )

    def move(self, study_id: str, state: int) -> study_pb2.Study:
        """Pause, resume or cancel a study; a study that has ended or is being cancelled stays as it is.

        Args:
            study_id: The study.
            state: PAUSED, RUNNING or CANCELLING (proto `StudyState`).

        Raises:
            NotFound: There is none.
        """
        with self._database.write() as session:
            row = find_study(session, study_id, lock=True)
            if states.may_change(states.study_number(row.state), state):
                row.state = states.study_name(state)
                row.sequence += 1
            session.flush()
            study = to_study(session, row)
        self._notifier.notify(study_id)
        self._notifier.notify(STUDIES)
        return study

    def remove(self, study_id: str) -> None:
        """Delete a study with its members; it can be undeleted until it is collected.

        Raises:
            NotFound: There is none.
            FailedPrecondition: It has not ended.
        """
        with self._database.write() as session:
            row = find_study(session, study_id, lock=True)
            if row.state not in _FINAL:
                raise FailedPrecondition(f"Study {study_id} has not ended; wait or cancel it first.")
            row.deleted_at = now()


def _member_row(study: StudyRow, number: int, planned: PlannedMember) -> StudyMemberRow:
    member = study_pb2.StudyMember()
    member.CopyFrom(planned.member)
    member.number, member.run_id, member.state = number, new_id("run"), states.MEMBER_WAITING
    study.sequence += 1
    return StudyMemberRow(
        study_id=study.id,
        number=number,
        run_id=member.run_id,
        dataset_id=member.dataset_id,
        settings=json_format.MessageToJson(planned.settings, indent=None),
        state=states.member_name(member.state),
        sequence=study.sequence,
        summary=json_format.MessageToJson(member, indent=None),
    )


def _digest(request: study_pb2.CreateStudyRequest) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
