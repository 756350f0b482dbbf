"""Limits of projects: what administrators have set, what is used, and the refusal of more."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf import json_format
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import ResourceExhausted
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.tables import (
    AttemptRow,
    DatasetRow,
    ModelRow,
    ProjectImageRow,
    ProjectLimitsRow,
    ProjectRow,
    RunRow,
    UploadRow,
)
from cellsparse_proto.v1 import dataset_pb2, project_pb2, trainer_pb2

_FINAL = [run_states.state_name(state) for state in run_states.FINAL]
_HOUR = 3600.0
_MIB = 2**20


def set_limits(session: Session, project_id: str, limits: project_pb2.ProjectLimits) -> None:
    """Set the limits of a project that exists, in place of those before."""
    session.merge(
        ProjectLimitsRow(
            project_id=project_id,
            max_bytes=_given(limits, "bytes"),
            max_items=_given(limits, "items"),
            max_runs=_given(limits, "runs"),
            max_gpu_hours=_given(limits, "gpu_hours"),
            checkpoint_days=_given(limits, "checkpoint_days"),
        )
    )


def read_limits(session: Session, project_id: str) -> project_pb2.ProjectLimits | None:
    """Return the limits of a project; None if nothing is set."""
    row = session.get(ProjectLimitsRow, project_id)
    if row is None:
        return None
    return project_pb2.ProjectLimits(
        bytes=row.max_bytes,
        items=row.max_items,
        runs=row.max_runs,
        gpu_hours=row.max_gpu_hours,
        checkpoint_days=row.checkpoint_days,
    )


def read_use(session: Session, project_id: str) -> project_pb2.ProjectUse:
    """Return what a project uses."""
    return project_pb2.ProjectUse(
        bytes=_bytes(session, project_id),
        items=_items(session, project_id),
        runs=_runs(session, project_id),
        gpu_hours=_gpu_hours(session, project_id),
    )


def check_room(session: Session, project_id: str | None, more: int, size: int) -> None:
    """Refuse more items of datasets or images, or bytes of these and of models, than a project may have.

    Raises:
        ResourceExhausted: Names the quota, what is used, and what would be needed.

    Args:
        session: The transaction that adds them.
        project_id: Whose they will be; None: nobody's.
        more: How many items or images; 0 for a model.
        size: Bytes in the store.
    """
    row = _locked(session, project_id)
    if row is not None and row.max_bytes is not None:
        kept = _bytes(session, row.project_id)
        if kept + size > row.max_bytes:
            most, used, need, then = (each / _MIB for each in (row.max_bytes, kept, size, kept + size))
            raise ResourceExhausted(
                f"The quota of project {row.project_id} is {most:.1f} MiB of datasets, images and models, and it has "
                f"{used:.1f} MiB: {need:.1f} MiB more take {then:.1f} MiB. Delete some, or ask an administrator for a "
                "larger quota."
            )
    if row is not None and row.max_items is not None:
        used = _items(session, row.project_id)
        if used + more > row.max_items:
            raise ResourceExhausted(
                f"The quota of project {row.project_id} is {row.max_items} items of datasets and images, and it has "
                f"{used}: {more} more take {used + more}. Delete some, or ask an administrator for a larger quota."
            )


def check_runs(session: Session, project_id: str | None, more: int) -> None:
    """Refuse some runs beyond a project's quota of runs at once, of GPU hours or of bytes; raises ResourceExhausted."""
    row = _locked(session, project_id)
    refusal = _run_refusal(session, row, more) if row is not None else ""
    if refusal:
        raise ResourceExhausted(refusal)


@dataclass(frozen=True, kw_only=True)
class RunsAllowed:
    """How many more runs a project may begin now."""

    count: int | None = None
    """None: any number."""
    refusal: str = ""
    """Why none is allowed; empty: some are."""


def runs_allowed(session: Session, project_id: str | None) -> RunsAllowed:
    """Return how many more runs a project may begin now."""
    row = session.get(ProjectLimitsRow, project_id) if project_id is not None else None
    if row is None:
        return RunsAllowed()
    refusal = _run_refusal(session, row)
    if refusal:
        return RunsAllowed(count=0, refusal=refusal)
    return RunsAllowed(count=None if row.max_runs is None else row.max_runs - _runs(session, row.project_id))


def _run_refusal(session: Session, row: ProjectLimitsRow, more: int = 1) -> str:
    """Return why a project may not begin so many more runs now; empty: it may."""
    if row.max_runs is not None:
        used = _runs(session, row.project_id)
        if used + more > row.max_runs:
            asked = "one more takes" if more == 1 else f"{more} more take"
            return (
                f"The quota of project {row.project_id} is {row.max_runs} runs at once, and {used} have not ended: "
                f"{asked} {used + more}. Wait, cancel one, or ask an administrator for a larger quota."
            )
    if row.max_gpu_hours is not None:
        hours = _gpu_hours(session, row.project_id)
        if hours >= row.max_gpu_hours:
            return (
                f"The quota of project {row.project_id} is {row.max_gpu_hours:g} GPU hours, and its trainings have "
                f"taken {hours:.2f}: another run takes more than that. Ask an administrator for a larger quota."
            )
    if row.max_bytes is not None:
        kept = _bytes(session, row.project_id)
        if kept >= row.max_bytes:
            most, used_mib = row.max_bytes / _MIB, kept / _MIB
            return (
                f"The quota of project {row.project_id} is {most:.1f} MiB of datasets, images and models, and it has "
                f"{used_mib:.1f} MiB: another run makes another model. Delete some, or ask an administrator for a "
                "larger quota."
            )
    return ""


def _locked(session: Session, project_id: str | None) -> ProjectLimitsRow | None:
    """Return the limits of a project, locked, so that calls at the same time cannot exceed them together."""
    if project_id is None:
        return None
    query = select(ProjectLimitsRow).where(ProjectLimitsRow.project_id == project_id)
    return session.scalar(query.with_for_update())


def _bytes(session: Session, project_id: str) -> int:
    total = func.coalesce(func.sum(DatasetRow.stored_bytes), 0)
    datasets = select(total).where(DatasetRow.project_id == project_id, DatasetRow.deleted_at.is_(None))
    owned = func.coalesce(ProjectRow.owner_id, ProjectRow.id) == project_id
    images = select(func.coalesce(func.sum(ProjectImageRow.stored_bytes), 0)).join(ProjectRow)
    images = images.where(owned, ProjectRow.deleted_at.is_(None))
    uploads = select(func.coalesce(func.sum(UploadRow.size), 0)).where(
        UploadRow.project_id == project_id, UploadRow.used.is_(False)
    )
    models = select(func.coalesce(func.sum(ModelRow.stored_bytes), 0))
    models = models.where(ModelRow.project_id == project_id, ModelRow.deleted_at.is_(None))
    return sum(int(session.scalar(query) or 0) for query in (datasets, images, uploads, models))


def _items(session: Session, project_id: str) -> int:
    query = select(DatasetRow.summary).where(DatasetRow.project_id == project_id, DatasetRow.deleted_at.is_(None))
    items = 0
    for summary in session.scalars(query):
        dataset = json_format.Parse(summary, dataset_pb2.Dataset(), ignore_unknown_fields=True)
        items += dataset.train_items + dataset.val_items + dataset.test_items
    owned = func.coalesce(ProjectRow.owner_id, ProjectRow.id) == project_id
    images = select(func.count()).select_from(ProjectImageRow).join(ProjectRow)
    return items + (session.scalar(images.where(owned, ProjectRow.deleted_at.is_(None))) or 0)


def _runs(session: Session, project_id: str) -> int:
    query = select(func.count()).select_from(RunRow)
    return session.scalar(query.where(RunRow.project_id == project_id, RunRow.state.not_in(_FINAL))) or 0


def _gpu_hours(session: Session, project_id: str) -> float:
    query = select(AttemptRow.created_at, AttemptRow.ended_at, RunRow.settings, AttemptRow.nodes).join(
        RunRow, RunRow.id == AttemptRow.run_id
    )
    rows = session.execute(query.where(RunRow.project_id == project_id)).tuples()
    return sum(_seconds(began, ended) * _processes(settings, nodes) for began, ended, settings, nodes in rows) / _HOUR


def _seconds(began: datetime, ended: datetime | None) -> float:
    return max(0.0, ((ended or now()) - began).total_seconds())


def _processes(text: str, nodes: int) -> int:
    settings = json_format.Parse(text, trainer_pb2.TrainingSettings(), ignore_unknown_fields=True)
    return (nodes or max(1, settings.nodes)) * max(1, settings.processes_per_node)


def _given(limits: project_pb2.ProjectLimits, name: str) -> Any:
    return getattr(limits, name) if limits.HasField(name) else None
