"""The table of runs from the clients' side: create, get, list, events, cancel."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, bindparam, func, select, union_all
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cellsparse_common.errors import AlreadyExists, FailedPrecondition
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.caller import acting, request_key, visible
from cellsparse_orchestrator.catalogue.deletion import Users, refuse_needed
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.group_writer import GroupWriter
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import RunRow, StudyMemberRow, StudyRow
from cellsparse_orchestrator.notifier import RECONCILER, STUDIES, Notifier
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_orchestrator.runs.events import add_event, read_events
from cellsparse_orchestrator.runs.new_runs import NewRun, queue_runs
from cellsparse_orchestrator.runs.rows import QueueView, find_run
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

_MOST_AT_ONCE = 100
"""Most runs queued in one transaction."""
_COUNT_SECONDS = 10.0
_ADD_SECONDS = 60.0
"""Longest wait of a new run for those before it."""
_QUEUED = run_states.state_name(run_states.QUEUED)
_UNFINISHED = [_QUEUED, *sorted(run_states.state_name(state) for state in run_states.ACTIVE)]
_OF_REQUEST = select(RunRow.__table__.c.number).where(
    RunRow.__table__.c.request_id.in_(bindparam("keys", expanding=True))
)
_FINAL = [run_states.state_name(state) for state in run_states.FINAL]
_Request = orchestrator_pb2.CreateRunRequest | orchestrator_pb2.CreateRunsRequest


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Which runs to list; an empty field admits all runs."""

    states: Sequence[int] = ()
    """Numbers of proto `RunState`."""
    backend: str = ""
    dataset_id: str = ""


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
        self._adding = GroupWriter(self._insert, _MOST_AT_ONCE, "runs", size=len)

    def find_request(self, request: orchestrator_pb2.CreateRunRequest) -> orchestrator_pb2.Run | None:
        """Return the run that an earlier call with this `request_id` made; None if there was no such call.

        Raises:
            AlreadyExists: The earlier call had other content.
            FailedPrecondition: Its run is deleted.
        """
        found = self._find(request.request_id, _keys(request), _digest(request))
        return found[0] if found else None

    def find_requests(self, request: orchestrator_pb2.CreateRunsRequest) -> list[orchestrator_pb2.Run]:
        """Return the runs that an earlier call with this `request_id` made; empty if there was no such call.

        Raises:
            AlreadyExists: The earlier call had other content.
            FailedPrecondition: One of its runs is deleted.
        """
        return self._find(request.request_id, _keys(request), _digest(request))

    def _find(self, request_id: str, keys: Sequence[str | None], digest: str) -> list[orchestrator_pb2.Run]:
        if not request_id:
            return []
        with self._database.read() as session:
            # Nearly always there is none, and to ask for a column takes a fraction of the time.
            numbers = list(session.connection().scalars(_OF_REQUEST, {"keys": keys}))
            if not numbers:
                return []
            rows = list(session.scalars(select(RunRow).where(RunRow.number.in_(numbers)).order_by(RunRow.number)))
            if rows[0].request_sha256 != digest:
                raise AlreadyExists(
                    f"request_id {request_id!r} made run {rows[0].id} with other content; use a new request_id.",
                    "request_id",
                )
            for row in rows:
                if row.deleted_at is not None:
                    raise FailedPrecondition(
                        f"request_id {request_id!r} made run {row.id}, which is deleted; undelete it, or use a new "
                        "request_id.",
                        "request_id",
                    )
            gone = len(keys) - len(rows)
            if gone:
                raise FailedPrecondition(
                    f"request_id {request_id!r} made {len(keys)} runs, {gone} of which are deleted for good; use a new "
                    "request_id.",
                    "request_id",
                )
            return self._shown(session, rows)

    def add(self, run_id: str, name: str, request: orchestrator_pb2.CreateRunRequest) -> orchestrator_pb2.Run:
        """Queue a run, or return the one that a concurrent call with the same `request_id` has queued.

        Args:
            run_id: Its id.
            name: Its name; empty: made from the backend and the dataset.
            request: What was asked for.

        Raises:
            NotFound: Its dataset, or the model that it starts from, has just been deleted or is not the caller's.
            AlreadyExists: The concurrent call had other content.
            ResourceExhausted: Its project has used up a quota.
            Unavailable: The database is locked, full or unreachable.
        """
        digest, (key,) = _digest(request), _keys(request)
        new = NewRun(run_id=run_id, name=name, request=request, request_key=key, request_sha256=digest)
        return self._add([new], lambda: self._find(request.request_id, [key], digest))[0]

    def add_together(
        self, run_ids: Sequence[str], request: orchestrator_pb2.CreateRunsRequest
    ) -> list[orchestrator_pb2.Run]:
        """Queue several runs, all or none, or return those of a concurrent call with the same `request_id`.

        Args:
            run_ids: An id for each.
            request: What was asked for.

        Raises:
            CellsparseError: As `add`.
        """
        digest, keys = _digest(request), _keys(request)
        several = [
            NewRun(run_id=run_id, name=asked.name, request=asked, request_key=key, request_sha256=digest)
            for run_id, asked, key in zip(run_ids, request.runs, keys, strict=True)
        ]
        return self._add(several, lambda: self._find(request.request_id, keys, digest))

    def _add(self, several: list[NewRun], find: Callable[[], list[orchestrator_pb2.Run]]) -> list[orchestrator_pb2.Run]:
        try:
            self._adding.submit(several, _ADD_SECONDS)
        except IntegrityError:
            known = find()
            if not known:
                raise
            return known
        return [new.run for new in several if new.run is not None]

    def _insert(self, calls: Sequence[Sequence[NewRun]]) -> None:
        """Queue the runs of some calls in one transaction."""
        with acting(None), self._database.write() as session:
            queue_runs(session, [new for call in calls for new in call], self.waiting())
        self._notifier.notify(RECONCILER)

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


def _keys(request: _Request) -> list[str | None]:
    """Return for each run of a call how its request id is stored; None: it has none."""
    key = request_key(request.request_id)
    if isinstance(request, orchestrator_pb2.CreateRunRequest):
        return [key]
    if key is None:
        return [None] * len(request.runs)
    # A slash is in no request id, so that none of these is one of a single run.
    return [hashlib.sha256(f"runs/{key}/{number}".encode()).hexdigest() for number in range(len(request.runs))]


def _digest(request: _Request) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
