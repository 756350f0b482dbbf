"""Queue new runs in one transaction, by plain statements: the queue, the runs, and the first event of each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from google.protobuf import json_format
from sqlalchemy import Connection, Table, bindparam, func, insert, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.caller import only_project
from cellsparse_orchestrator.catalogue.limits import check_runs
from cellsparse_orchestrator.catalogue.models import find_model
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.db.tables import DatasetRow, EventRow, ProjectLimitsRow, RunRow
from cellsparse_orchestrator.runs.events import event_values
from cellsparse_orchestrator.runs.rows import waiting_message
from cellsparse_proto.v1 import orchestrator_pb2

DEFAULT_ATTEMPTS = 3
_NAME_LENGTH = 100
_QUEUED = run_states.state_name(run_states.QUEUED)
_ACTIVE = [run_states.state_name(state) for state in run_states.ACTIVE]

# All statements are made once and know only tables: to make one, or to go through the session, takes longer than to run
# it.
_RUNS, _DATASETS, _LIMITS, _EVENTS = (
    cast("Table", row.__table__) for row in (RunRow, DatasetRow, ProjectLimitsRow, EventRow)
)
_RUN, _DATASET, _LIMIT = _RUNS.c, _DATASETS.c, _LIMITS.c
_READ_DATASETS = (
    select(_DATASET.id, _DATASET.name, _DATASET.project_id)
    .where(_DATASET.id.in_(bindparam("ids", expanding=True)), _DATASET.deleted_at.is_(None))
    .order_by(_DATASET.id)
    .with_for_update()
)
_READ_LIMITED = select(_LIMIT.project_id).where(_LIMIT.project_id.in_(bindparam("ids", expanding=True)))
_COUNT_QUEUE = (
    select(_RUN.state, _RUN.priority, func.count())
    .where(_RUN.state.in_([_QUEUED, *_ACTIVE]))
    .group_by(_RUN.state, _RUN.priority)
)
_ADD_RUNS, _ADD_EVENTS = insert(_RUNS), insert(_EVENTS)


@dataclass(kw_only=True, eq=False)
class NewRun:
    """A run to queue."""

    run_id: str
    name: str = ""
    """Empty: made from the backend and the dataset."""
    request: orchestrator_pb2.CreateRunRequest
    request_key: str | None = None
    """How its request id is stored; None: it has none."""
    request_sha256: str = ""
    """Of the whole call, as a repeated one must have the same."""
    seen_project: str | None = field(default_factory=only_project)
    """The one project whose datasets the caller sees; None: those of all."""
    settings: str = field(init=False)
    """The settings as JSON."""
    backend: str = field(init=False)
    run: orchestrator_pb2.Run | None = None
    """The queued run; None before."""

    def __post_init__(self) -> None:
        self.settings = json_format.MessageToJson(self.request.settings, indent=None)
        self.backend = self.request.settings.WhichOneof("backend") or ""

    @property
    def max_attempts(self) -> int:
        """Most attempts."""
        return self.request.max_attempts if self.request.HasField("max_attempts") else DEFAULT_ATTEMPTS


@dataclass(kw_only=True)
class _FirstState:
    """A run's state when it is queued, for its first event."""

    id: str
    message: str
    last_sequence: int = 1
    state: str = _QUEUED
    attempts: int = 0
    reason: str = ""


def queue_runs(session: Session, several: Sequence[NewRun], waiting: str) -> None:
    """Queue runs in this order; those of several callers, which the transaction must see all of.

    Args:
        session: The transaction.
        several: The runs; `run` is set.
        waiting: What the whole queue waits for; empty: only for runs that are ahead.

    Raises:
        NotFound: A dataset, or a model that a run starts from, has just been deleted or is not the caller's.
        ResourceExhausted: A project has used up a quota.
        IntegrityError: A request id is known already.
    """
    connection = session.connection()
    datasets = _lock_datasets(connection, several)
    for model_id in sorted({new.request.settings.initial_model for new in several} - {""}):
        find_model(session, model_id, lock=True)  # not deleted meanwhile
    _check_limits(session, connection, [datasets[new.request.dataset_id].project_id for new in several])
    for new in several:
        new.name = new.name or f"{new.backend} {datasets[new.request.dataset_id].name}"[:_NAME_LENGTH]
    places, active = _places(connection, [new.request.priority for new in several])
    created = now()
    messages = [waiting or waiting_message(active + place - 1) for place in places]
    connection.execute(
        _ADD_RUNS,
        [
            _run_values(new, datasets[new.request.dataset_id].project_id, message, created)
            for new, message in zip(several, messages, strict=True)
        ],
    )
    connection.execute(
        _ADD_EVENTS,
        [
            event_values(_FirstState(id=new.run_id, message=message), None)
            for new, message in zip(several, messages, strict=True)
        ],
    )
    for new, message, place in zip(several, messages, places, strict=True):
        new.run = _to_proto(new, message, place, created)


def _lock_datasets(connection: Connection, several: Sequence[NewRun]) -> dict[str, Any]:
    """Lock the datasets of runs and return them by id; raises NotFound."""
    ids = sorted({new.request.dataset_id for new in several})
    found: dict[str, Any] = {row.id: row for row in connection.execute(_READ_DATASETS, {"ids": ids})}
    for new in several:
        row = found.get(new.request.dataset_id)
        if row is None or new.seen_project not in (None, row.project_id):
            raise NotFound(f"There is no dataset {new.request.dataset_id!r}.")
    return found


def _check_limits(session: Session, connection: Connection, owners: Sequence[str | None]) -> None:
    """Refuse runs beyond the quotas of the projects that they will belong to; raises ResourceExhausted."""
    more = Counter(owner for owner in owners if owner is not None)
    if more:
        for project_id in sorted(connection.scalars(_READ_LIMITED, {"ids": sorted(more)})):
            check_runs(session, project_id, more[project_id])


def _places(connection: Connection, priorities: Sequence[int]) -> tuple[list[int], int]:
    """Return the places in the queue of runs that are about to be queued, from 1, and how many runs are active."""
    queued: Counter[int] = Counter()
    active = 0
    for state, priority, size in connection.execute(_COUNT_QUEUE):
        if state == _QUEUED:
            queued[priority] = size
        else:
            active += size
    queued.update(priorities)
    behind: Counter[int] = Counter()
    places = []
    for priority in reversed(priorities):  # each is the last of its priority, but for those that come after it
        ahead = sum(size for other, size in queued.items() if other >= priority)
        places.append(ahead - behind[priority])
        behind[priority] += 1
    return places[::-1], active


def _run_values(new: NewRun, project_id: str | None, message: str, created: datetime) -> dict[str, Any]:
    return {
        "id": new.run_id,
        "request_id": new.request_key,
        "request_sha256": new.request_sha256,
        "name": new.name,
        "backend": new.backend,
        "dataset_id": new.request.dataset_id,
        "settings": new.settings,
        "priority": new.request.priority,
        "max_attempts": new.max_attempts,
        "state": _QUEUED,
        "reason": "",
        "message": message,
        "attempts": 0,
        "interruptions": 0,
        "cancel_requested": False,
        "created_at": created,
        "last_sequence": 1,
        "progress": b"",
        "validation": b"",
        "project_id": project_id,
    }


def _to_proto(new: NewRun, message: str, place: int, created: datetime) -> orchestrator_pb2.Run:
    """Return a run that has just been queued as clients see it, like `QueueView.to_proto`."""
    run = orchestrator_pb2.Run(
        id=new.run_id,
        name=new.name,
        backend=new.backend,
        dataset_id=new.request.dataset_id,
        settings=new.request.settings,
        state=run_states.QUEUED,
        message=message,
        max_attempts=new.max_attempts,
        priority=new.request.priority,
        created_at=timestamp(created),
        queue_position=place,
    )
    run.DiscardUnknownFields()  # type: ignore[attr-defined]  # as those that are read from the table
    return run
