"""The table of datasets that clients can see; a row is made once its dataset is complete in the store."""

from collections.abc import Sequence
from datetime import UTC

from google.protobuf import json_format
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import FailedPrecondition, NotFound
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.caller import new_owner, owned, visible
from cellsparse_orchestrator.catalogue.deletion import Users, refuse_needed
from cellsparse_orchestrator.catalogue.limits import check_room
from cellsparse_orchestrator.catalogue.used_uploads import use_uploads
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow, RunRow, StudyMemberRow, StudyRow
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_proto.v1 import common_pb2, dataset_pb2


class Datasets:
    """The table of datasets."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.publishing = database.publishing
        """Held while a dataset is made, from before its first blob is stored until its row is there."""

    def add(
        self,
        dataset: dataset_pb2.Dataset,
        project_id: str | None = None,
        *,
        size: int = 0,
        uploads: Sequence[str] = (),
    ) -> None:
        """Make a dataset visible; its manifest and blobs must be in the store.

        Args:
            dataset: The dataset.
            project_id: The project that it belongs to; None: that of its parent, without a parent the caller's.
            size: Bytes of its blobs in the store, without those of its parent.
            uploads: Files (SHA-256) that it was made of: its bytes count in their place.

        Raises:
            ResourceExhausted: The project has no room for so many items or bytes.
        """
        row = DatasetRow(
            id=dataset.id,
            name=dataset.name,
            created_at=dataset.created_at.ToDatetime(tzinfo=UTC),
            parent_id=dataset.parent_id,
            summary=json_format.MessageToJson(dataset, indent=None),
            project_id=project_id or new_owner(),
            stored_bytes=size,
        )
        with self._database.write() as session:
            if dataset.parent_id and project_id is None:
                parents = select(DatasetRow.project_id).where(DatasetRow.id == dataset.parent_id)
                row.project_id = session.scalar(parents) or row.project_id
            use_uploads(session, uploads)
            items = dataset.train_items + dataset.val_items + dataset.test_items
            check_room(session, row.project_id, items, size)
            session.add(row)

    def get(self, dataset_id: str) -> dataset_pb2.Dataset:
        """Return a dataset; raises NotFound."""
        with self._database.read() as session:
            return _to_proto(find_dataset(session, dataset_id))

    def find(self, dataset_id: str) -> dataset_pb2.Dataset | None:
        """Return the caller's dataset of this id, which they have made before; None if there is none.

        Raises:
            FailedPrecondition: It is deleted.
        """
        with self._database.read() as session:
            query = select(DatasetRow).where(DatasetRow.id == dataset_id, owned(DatasetRow.project_id))
            row = session.scalar(query)
            if row is not None and row.deleted_at is not None:
                raise FailedPrecondition(f"The request has made dataset {dataset_id} before, and it is deleted.")
            return None if row is None else _to_proto(row)

    def any(self) -> bool:
        """Whether there is a dataset, and so something in the store."""
        with self._database.read() as session:
            return session.scalar(select(DatasetRow.number).limit(1)) is not None

    def page(self, page: common_pb2.PageRequest) -> tuple[list[dataset_pb2.Dataset], str]:
        """Return a page, newest first, and the token of the next one; raises InvalidArgument for a foreign token."""
        before = decode_token("datasets", page.page_token)
        query = select(DatasetRow).where(visible(DatasetRow))
        query = query.order_by(DatasetRow.number.desc()).limit(page_size(page) + 1)
        if before is not None:
            query = query.where(DatasetRow.number < before)
        with self._database.read() as session:
            rows = list(session.scalars(query))
        shown = rows[: page_size(page)]
        token = encode_token("datasets", shown[-1].number) if len(rows) > len(shown) else ""
        return [_to_proto(row) for row in shown], token

    def remove(self, dataset_id: str) -> None:
        """Delete a dataset; it can be undeleted until it is collected.

        Raises:
            NotFound: There is none.
            FailedPrecondition: A run or a study that has not ended needs it.
        """
        with self._database.write() as session:
            row = find_dataset(session, dataset_id, lock=True)
            refuse_needed(session, f"Dataset {dataset_id}", _users(dataset_id))
            row.deleted_at = now()

    def revive(self, dataset_id: str) -> dataset_pb2.Dataset | None:
        """Undelete a dataset that is about to be made again by the same request; None if there is no such one."""
        with self._database.write() as session:
            query = select(DatasetRow).where(DatasetRow.id == dataset_id, DatasetRow.deleted_at.is_not(None))
            row = session.scalar(query.with_for_update())
            if row is None:
                return None
            row.deleted_at = None
            return _to_proto(row)


def find_dataset(session: Session, dataset_id: str, *, lock: bool = False) -> DatasetRow:
    """Return a dataset's row; with `lock`, locked until the transaction ends. Raises NotFound."""
    query = select(DatasetRow).where(DatasetRow.id == dataset_id, visible(DatasetRow))
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"There is no dataset {dataset_id!r}.")
    return row


def _users(dataset_id: str) -> list[Users]:
    """Return what may still need a dataset."""
    final = [run_states.state_name(state) for state in run_states.FINAL]
    runs = select(RunRow.id).where(RunRow.dataset_id == dataset_id, RunRow.state.not_in(final))
    # Studies and members have final states of the same names as runs.
    members = select(StudyMemberRow.study_id).where(
        StudyMemberRow.dataset_id == dataset_id, StudyMemberRow.state.not_in(final)
    )
    studies = select(StudyRow.id).where(
        StudyRow.state.not_in(final), or_(StudyRow.dataset_id == dataset_id, StudyRow.id.in_(members))
    )
    remedy = "wait or cancel them first"
    return [
        Users(noun="runs that have not ended", remedy=remedy, ids=runs),
        Users(noun="studies that have not ended", remedy=remedy, ids=studies),
    ]


def _to_proto(row: DatasetRow) -> dataset_pb2.Dataset:
    return json_format.Parse(row.summary, dataset_pb2.Dataset(), ignore_unknown_fields=True)
