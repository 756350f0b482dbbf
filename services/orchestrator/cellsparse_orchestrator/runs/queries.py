"""The table of runs from the clients' side: create, get, list, events, cancel."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf import json_format
from sqlalchemy import Select, func, select, union_all
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cellsparse_common.errors import AlreadyExists, FailedPrecondition
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.caller import acting, request_key, visible
from cellsparse_orchestrator.catalogue.datasets import find_dataset
from cellsparse_orchestrator.catalogue.deletion import Users, refuse_needed
from cellsparse_orchestrator.catalogue.limits import check_run, has_limits
from cellsparse_orchestrator.catalogue.models import find_model
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.group_commit import GroupCommit
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import RunRow, StudyMemberRow, StudyRow
from cellsparse_orchestrator.notifier import RECONCILER, STUDIES, Notifier
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_orchestrator.runs.events import add_event, read_events
from cellsparse_orchestrator.runs.rows import QueueView, find_run
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

DEFAULT_ATTEMPTS = 3
_MOST_AT_ONCE = 50
"""Most runs queued in one transaction."""
_COUNT_SECONDS = 10.0
_ADD_SECONDS = 60.0
"""Longest wait of a new run for those before it."""
_QUEUED = run_states.state_name(run_states.QUEUED)
_UNFINISHED = [_QUEUED, *sorted(run_states.state_name(state) for state in run_states.ACTIVE)]
_FINAL = [run_states.state_name(state) for state in run_states.FINAL]


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Which runs to list; an empty field admits all runs."""

    states: Sequence[int] = ()
    """Numbers of proto `RunState`."""
    backend: str = ""
    dataset_id: str = ""


@dataclass(kw_only=True, eq=False)
class _RunToAdd:
    """A run to queue."""

    run_id: str
    name: str
    request: orchestrator_pb2.CreateRunRequest
    request_key: str | None
    """How its request id is stored."""
    run: orchestrator_pb2.Run | None = None
    """The queued run; None before."""


class Runs:
    """The table of runs, from the clients' side.

    Args:
        database: Where.
        notifier: Is notified of changes.
        waiting: Returns what the whole queue waits for; empty: only for runs that are ahead.
    """

    def __init__(self, database: Database, notifier: Notifier, waiting: Callable[[], str] = lambda: "") -> None:
        self._database = database
        self._notifier = notifier
        self.waiting = waiting
        self._active: tuple[tuple[int, int], float, int] | None = None
        """Versions of the topics, when they were read, and the runs that had not ended then."""
        # Clients may ask for many runs at once, while SQLite lets one writer in at a time.
        self._adding = GroupCommit(self._insert, _MOST_AT_ONCE)

    def find_request(self, request: orchestrator_pb2.CreateRunRequest) -> orchestrator_pb2.Run | None:
        """Return the run that an earlier call with this `request_id` made; None if there was no such call.

        Raises:
            AlreadyExists: The earlier call had other content.
        """
        if not request.request_id:
            return None
        with self._database.read() as session:
            row = session.scalar(select(RunRow).where(RunRow.request_id == request_key(request.request_id)))
            if row is None:
                return None
            if row.request_sha256 != _digest(request):
                raise AlreadyExists(
                    f"request_id {request.request_id!r} made run {row.id} with other content; use a new request_id.",
                    "request_id",
                )
            if row.deleted_at is not None:
                raise FailedPrecondition(
                    f"request_id {request.request_id!r} made run {row.id}, which is deleted; undelete it, or use a new "
                    "request_id.",
                    "request_id",
                )
            return self._shown(session, [row])[0]

    def add(self, run_id: str, name: str, request: orchestrator_pb2.CreateRunRequest) -> orchestrator_pb2.Run:
        """Queue a run, or return the one that a concurrent call with the same `request_id` has queued.

        Args:
            run_id: Its id.
            name: Its name.
            request: What was asked for.

        Raises:
            NotFound: Its dataset, or the model that it starts from, has just been deleted.
            AlreadyExists: The concurrent call had other content.
            ResourceExhausted: Its project has used up a quota.
            Unavailable: The database is locked, full or unreachable.
        """
        key = request_key(request.request_id)
        new = _RunToAdd(run_id=run_id, name=name, request=request, request_key=key)
        try:
            self._adding.submit(new, _ADD_SECONDS)
        except IntegrityError:
            known = self.find_request(request)
            if known is None:
                raise
            return known
        assert new.run is not None
        self._notifier.notify(RECONCILER)
        return new.run

    def _row(self, new: _RunToAdd, project_id: str | None) -> RunRow:
        request = new.request
        return RunRow(
            id=new.run_id,
            request_id=new.request_key,
            request_sha256=_digest(request),
            name=new.name,
            backend=request.settings.WhichOneof("backend"),
            dataset_id=request.dataset_id,
            settings=json_format.MessageToJson(request.settings, indent=None),
            priority=request.priority,
            max_attempts=request.max_attempts if request.HasField("max_attempts") else DEFAULT_ATTEMPTS,
            state=_QUEUED,
            reason="",
            message="",
            attempts=0,
            interruptions=0,
            cancel_requested=False,
            created_at=now(),
            last_sequence=0,
            progress=b"",
            validation=b"",
            project_id=project_id,
        )

    def _insert(self, several: Sequence[_RunToAdd]) -> None:
        """Queue runs in one transaction; those of several callers, each of whom has looked up the dataset before."""
        with acting(None), self._database.write() as session:
            owners = {
                dataset_id: find_dataset(session, dataset_id, lock=True).project_id
                for dataset_id in sorted({new.request.dataset_id for new in several})
            }
            for model_id in sorted({new.request.settings.initial_model for new in several} - {""}):
                find_model(session, model_id, lock=True)  # not deleted meanwhile
            rows = [self._row(new, owners[new.request.dataset_id]) for new in several]
            _add_all(session, rows)
            queue = QueueView(session, rows, self.waiting(), new=True)
            for new, row in zip(several, rows, strict=True):
                row.message = queue.message(row)
                add_event(session, row)
                new.run = queue.to_proto(row)

    def get(self, run_id: str) -> orchestrator_pb2.Run:
        """Return a run; raises NotFound."""
        with self._database.read() as session:
            return self._shown(session, [find_run(session, run_id)])[0]

    def several(self, run_ids: Sequence[str]) -> list[orchestrator_pb2.Run]:
        """Return the runs of some ids in the order of the ids, without those that do not exist."""
        with self._database.read() as session:
            query = select(RunRow).where(RunRow.id.in_(run_ids), visible(RunRow))
            rows = {row.id: row for row in session.scalars(query)}
            return self._shown(session, [rows[run_id] for run_id in run_ids if run_id in rows])

    def page(self, page: common_pb2.PageRequest, chosen: RunFilter) -> tuple[list[orchestrator_pb2.Run], str]:
        """Return a page of the chosen runs, newest first, and the token of the next one."""
        query = _newest(chosen, decode_token("runs", page.page_token), page_size(page) + 1)
        with self._database.read() as session:
            rows = list(session.scalars(query))
            shown = rows[: page_size(page)]
            runs = self._shown(session, shown)
        return runs, encode_token("runs", shown[-1].number) if len(rows) > len(shown) else ""

    def events(self, run_id: str, after: int, most: int = 200) -> tuple[list[orchestrator_pb2.RunEvent], bool]:
        """Return a run's next events, and whether no more will follow; raises NotFound."""
        with self._database.read() as session:
            row = find_run(session, run_id)
            found = read_events(session, run_id, after, most)
            newest = found[-1].sequence if found else after
            return found, row.state in _FINAL and newest >= row.last_sequence

    def cancel(self, run_id: str) -> orchestrator_pb2.Run:
        """Cancel a run, one that trains with a short delay through the reconciler; raises NotFound."""
        with self._database.write() as session:
            row = find_run(session, run_id, lock=True)
            if row.state in (_QUEUED, run_states.state_name(run_states.RETRYING)):
                row.state, row.message = run_states.state_name(run_states.CANCELLED), "Cancelled."
                row.reason, row.ended_at, row.retry_at = "", now(), None
                add_event(session, row)
            elif row.state not in _FINAL and not row.cancel_requested:
                row.cancel_requested, row.message = True, "Being cancelled."
            run = self._shown(session, [row])[0]
        self._notifier.notify(run_id, STUDIES)
        self._notifier.tell(RECONCILER, run_id)
        return run

    def remove(self, run_id: str) -> None:
        """Delete a run; it can be undeleted until it is collected. Its model stays.

        Raises:
            NotFound: There is none.
            FailedPrecondition: It has not ended, or a study that has not ended needs it.
        """
        with self._database.write() as session:
            row = find_run(session, run_id, lock=True)
            if row.state not in _FINAL:
                raise FailedPrecondition(f"Run {run_id} has not ended; wait or cancel it first.")
            # Studies have final states of the same names as runs.
            members = select(StudyMemberRow.study_id).where(StudyMemberRow.run_id == run_id)
            studies = select(StudyRow.id).where(StudyRow.state.not_in(_FINAL), StudyRow.id.in_(members))
            users = Users(noun="studies that have not ended", remedy="wait or cancel them first", ids=studies)
            refuse_needed(session, f"Run {run_id}", [users])
            row.deleted_at = now()

    def _shown(self, session: Session, rows: Sequence[RunRow]) -> list[orchestrator_pb2.Run]:
        queue = QueueView(session, rows, self.waiting())
        return [queue.to_proto(row) for row in rows]

    def count_states(self) -> dict[str, int]:
        """Return the number of runs by state name, without the states that no run is in."""
        with self._database.read() as session:
            there = select(RunRow.state, func.count()).where(RunRow.deleted_at.is_(None))
            counts = session.execute(there.group_by(RunRow.state))
            return dict(counts.tuples().all())

    def count_active(self) -> int:
        """Return the number of runs that have not ended.

        It is asked for all the time, and changes with what is notified to the reconcilers. In between it is not read
        again for some seconds.
        """
        versions = self._notifier.version(RECONCILER), self._notifier.version(STUDIES)
        began, known = time.monotonic(), self._active
        if known is None or known[0] != versions or began - known[1] > _COUNT_SECONDS:
            with self._database.read() as session:
                count = session.scalar(select(func.count()).where(RunRow.state.in_(_UNFINISHED))) or 0
            known = self._active = versions, began, count
        return known[2]


def _add_all(session: Session, rows: Sequence[RunRow]) -> None:
    """Insert runs: those of projects with limits one by one, since each counts for the next; the others together."""
    projects = sorted({row.project_id for row in rows if row.project_id is not None})
    limited = {project_id for project_id in projects if has_limits(session, project_id)}
    for row in rows:
        if row.project_id in limited:
            check_run(session, row.project_id)
        session.add(row)
        if row.project_id in limited:
            session.flush()
    session.flush()


def _newest(chosen: RunFilter, before: int | None, most: int) -> Select[RunRow]:
    """Return the query for the newest of the chosen runs, all those before a number."""
    conditions = [visible(RunRow)]
    if before is not None:
        conditions.append(RunRow.number < before)
    if chosen.backend:
        conditions.append(RunRow.backend == chosen.backend)
    if chosen.dataset_id:
        conditions.append(RunRow.dataset_id == chosen.dataset_id)
    newest = RunRow.number.desc()
    query = select(RunRow).order_by(newest).limit(most)
    if not chosen.states:
        return query.where(*conditions)
    # An index has the runs of each state in order, but those of several states would have to be sorted.
    names = {run_states.state_name(state) for state in chosen.states}
    numbers = select(RunRow.number).where(*conditions).order_by(newest).limit(most)
    states = [numbers.where(RunRow.state == name).subquery() for name in sorted(names)]
    return query.where(RunRow.number.in_(union_all(*(select(state.c.number) for state in states))))


def _digest(request: orchestrator_pb2.CreateRunRequest) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
