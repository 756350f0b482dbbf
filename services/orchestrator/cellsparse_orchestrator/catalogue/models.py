"""The table of models; a row is made when a training run succeeds or an import is complete."""

import json

from google.protobuf import json_format
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.caller import new_owner, visible
from cellsparse_orchestrator.catalogue.deletion import Users, refuse_needed
from cellsparse_orchestrator.catalogue.limits import check_room
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AliasRow, ModelRow, RunRow, StudyMemberRow, StudyRow
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2


class Models:
    """The table of models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, model_id: str) -> orchestrator_pb2.Model:
        """Return a model; raises NotFound."""
        with self._database.read() as session:
            return _to_proto(find_model(session, model_id))

    def is_known(self, model_id: str) -> bool:
        """Whether there is a model of this id: of any project, deleted or not."""
        with self._database.read() as session:
            return session.scalar(select(ModelRow.number).where(ModelRow.id == model_id)) is not None

    def page(self, page: common_pb2.PageRequest, backend: str) -> tuple[list[orchestrator_pb2.Model], str]:
        """Return a page, newest first, of all backends or one, and the token of the next page."""
        before = decode_token("models", page.page_token)
        query = select(ModelRow).where(visible(ModelRow))
        query = query.order_by(ModelRow.number.desc()).limit(page_size(page) + 1)
        if before is not None:
            query = query.where(ModelRow.number < before)
        if backend:
            query = query.where(ModelRow.backend == backend)
        with self._database.read() as session:
            rows = list(session.scalars(query))
        shown = rows[: page_size(page)]
        token = encode_token("models", shown[-1].number) if len(rows) > len(shown) else ""
        return [_to_proto(row) for row in shown], token

    def remove(self, model_id: str) -> None:
        """Delete a model; it can be undeleted until it is collected.

        Raises:
            NotFound: There is none.
            FailedPrecondition: A run or a study that has not ended needs it, or an alias.
        """
        with self._database.write() as session:
            row = find_model(session, model_id, lock=True)
            refuse_needed(session, f"Model {model_id}", _users(model_id))
            row.deleted_at = now()

    def add_imported(self, model_id: str, name: str, backend: str, size: int = 0) -> orchestrator_pb2.Model:
        """Register an imported model that is complete in the store.

        Args:
            model_id: Its id.
            name: Its name.
            backend: What it is a model of.
            size: Bytes of its files.

        Raises:
            ResourceExhausted: The quota of its project has no room for it.
        """
        row = ModelRow(
            id=model_id,
            name=name,
            backend=backend,
            dataset_id="",
            created_at=now(),
            step=0,
            validation="{}",
            initial_model="",
            start_validation="{}",
            project_id=new_owner(),
            stored_bytes=size,
        )
        with self._database.write() as session:
            check_room(session, row.project_id, 0, size)
            session.add(row)
            session.flush()
            return _to_proto(row)


def find_model(session: Session, model_id: str, *, lock: bool = False) -> ModelRow:
    """Return a model's row; with `lock`, locked until the transaction ends. Raises NotFound."""
    query = select(ModelRow).where(ModelRow.id == model_id, visible(ModelRow))
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(
            f"There is no model {model_id!r}; a model has the id of a run that has succeeded, or of its import."
        )
    return row


def add_model(session: Session, run: RunRow, last: trainer_pb2.TrainingEvent | None) -> None:
    """Register the model of a run that has just succeeded.

    Args:
        session: The transaction that ends the run.
        run: The run.
        last: The trainer's last event, if there is one.
    """
    scored = trainer_pb2.TrainingEvent.FromString(run.validation)
    source = last if last is not None and last.validation else scored
    progress = trainer_pb2.TrainingEvent.FromString(run.progress)
    step = (last.step if last is not None else 0) or source.step or progress.step
    if last is not None and last.HasField("model_step"):
        step = last.model_step
    settings = json_format.Parse(run.settings, trainer_pb2.TrainingSettings(), ignore_unknown_fields=True)
    session.add(
        ModelRow(
            id=run.id,
            name=run.name,
            backend=run.backend,
            dataset_id=run.dataset_id,
            created_at=now(),
            step=step,
            validation=json.dumps(dict(source.validation)),
            initial_model=settings.initial_model,
            start_validation=json.dumps(dict(last.start_validation) if last is not None else {}),
            project_id=run.project_id,
            stored_bytes=last.model_bytes if last is not None and last.HasField("model_bytes") else None,
        )
    )


def _users(model_id: str) -> list[Users]:
    """Return what may still need a model."""
    final = [run_states.state_name(state) for state in run_states.FINAL]
    starts = f'"initialModel": "{model_id}"'  # as `json_format` writes it; ids need no quoting
    runs = select(RunRow.id).where(RunRow.state.not_in(final), RunRow.settings.contains(starts, autoescape=True))
    # Studies have final states of the same names as runs.
    members = select(StudyMemberRow.study_id).where(
        or_(StudyMemberRow.run_id == model_id, StudyMemberRow.settings.contains(starts, autoescape=True))
    )
    studies = select(StudyRow.id).where(StudyRow.state.not_in(final), StudyRow.id.in_(members))
    aliases = select(AliasRow.name).where(AliasRow.model_id == model_id)
    remedy = "wait or cancel them first"
    return [
        Users(noun="runs that have not ended and start from it", remedy=remedy, ids=runs),
        Users(noun="studies that have not ended", remedy=remedy, ids=studies),
        Users(noun="aliases", remedy="delete them or let them mean another model first", ids=aliases),
    ]


def _to_proto(row: ModelRow) -> orchestrator_pb2.Model:
    return orchestrator_pb2.Model(
        id=row.id,
        name=row.name,
        backend=row.backend,
        dataset_id=row.dataset_id,
        created_at=timestamp(row.created_at),
        step=row.step,
        validation=json.loads(row.validation),
        initial_model=row.initial_model,
        start_validation=json.loads(row.start_validation),
    )
