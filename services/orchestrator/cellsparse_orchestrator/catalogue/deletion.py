"""Deleting and undeleting: a deleted thing is hidden, and stays until a collection after its grace time removes it.

Nothing is deleted that something else needs; the refusal names what needs it. So nothing comes to need a deleted thing,
which nobody can find, and it can be undeleted at any time as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, literal, select, union_all
from sqlalchemy.orm import Session

from cellsparse_common.errors import FailedPrecondition, NotFound
from cellsparse_orchestrator.caller import owned
from cellsparse_orchestrator.catalogue.owners import owned_projects
from cellsparse_orchestrator.clock import timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow, ModelRow, ProjectRow, RunRow, StudyRow
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

DATASET = orchestrator_pb2.DELETED_KIND_DATASET
RUN = orchestrator_pb2.DELETED_KIND_RUN
MODEL = orchestrator_pb2.DELETED_KIND_MODEL
STUDY = orchestrator_pb2.DELETED_KIND_STUDY
PROJECT = orchestrator_pb2.DELETED_KIND_PROJECT

TABLES: dict[int, Any] = {DATASET: DatasetRow, RUN: RunRow, MODEL: ModelRow, STUDY: StudyRow, PROJECT: ProjectRow}
"""The table of each kind of thing that can be deleted."""
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Users:
    """What may need something."""

    noun: str
    """Such as "runs that have not ended"."""
    remedy: str
    """What to do about it."""
    ids: Select[Any]
    """Asks for their ids or names."""


def refuse_needed(session: Session, what: str, users: Sequence[Users]) -> None:
    """Refuse to delete what something else needs.

    Args:
        session: The transaction that would delete it, which has locked its row.
        what: Such as "Dataset ds-1".
        users: What may need it.

    Raises:
        FailedPrecondition: Something does; the message names it.
    """
    for each in users:
        found = list(session.scalars(each.ids.limit(_SHOWN + 1)))
        if found:
            named = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
            raise FailedPrecondition(f"{what} is needed by {each.noun} ({named}); {each.remedy}.")


class Deletions:
    """What is deleted.

    Args:
        database: The tables.
        grace: How long a deleted thing can at least be undeleted.
    """

    def __init__(self, database: Database, grace: timedelta) -> None:
        self._database = database
        self._grace = grace

    def restore(self, kind: int, thing_id: str) -> None:
        """Undelete something; what is not deleted stays as it is. Raises NotFound.

        Args:
            kind: A proto `DeletedKind`.
            thing_id: Its id.
        """
        table = TABLES[kind]
        with self._database.write() as session:
            query = select(table).where(table.id == thing_id, _owned(kind)).with_for_update()
            row = session.scalar(query)
            if row is None:
                name = orchestrator_pb2.DeletedKind.Name(orchestrator_pb2.DeletedKind.ValueType(kind))
                raise NotFound(f"There is no {name.removeprefix('DELETED_KIND_').lower()} {thing_id!r}.")
            row.deleted_at = None

    def page(self, page: common_pb2.PageRequest, kind: int = 0) -> tuple[list[orchestrator_pb2.Deleted], str]:
        """Return a page of what the caller's project has deleted, newest first, and the token of the next one.

        Args:
            page: The page.
            kind: Only this proto `DeletedKind`; 0: all.
        """
        begin = decode_token("deleted", page.page_token) or 0
        size = page_size(page)
        parts = [
            select(literal(each).label("kind"), table.id, table.name, table.deleted_at).where(
                table.deleted_at.is_not(None), _owned(each)
            )
            for each, table in TABLES.items()
            if kind in (0, each)
        ]
        every = union_all(*parts).subquery()
        query = select(every).order_by(every.c.deleted_at.desc(), every.c.kind, every.c.id)
        with self._database.read() as session:
            rows = session.execute(query.offset(begin).limit(size + 1)).all()
        token = encode_token("deleted", begin + size) if len(rows) > size else ""
        return [self._to_proto(*row) for row in rows[:size]], token

    def _to_proto(self, kind: int, thing_id: str, name: str, deleted_at: datetime) -> orchestrator_pb2.Deleted:
        return orchestrator_pb2.Deleted(
            kind=cast("orchestrator_pb2.DeletedKind", kind),
            id=thing_id,
            name=name,
            deleted_at=timestamp(deleted_at),
            ends_at=timestamp(deleted_at + self._grace),
        )


def _owned(kind: int) -> ColumnElement[bool]:
    return owned_projects() if kind == PROJECT else owned(TABLES[kind].project_id)
