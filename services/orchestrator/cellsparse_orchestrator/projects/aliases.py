"""The table of aliases: words that clients use for a model and for the images that trained it."""

from sqlalchemy import ColumnElement, delete, select

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator.caller import new_owner, only_project
from cellsparse_orchestrator.catalogue.models import find_model
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AliasRow, storable
from cellsparse_orchestrator.projects.rows import find_project
from cellsparse_proto.v1 import project_pb2


class Aliases:
    """The table of aliases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, backend: str, name: str) -> project_pb2.Alias:
        """Return an alias; raises NotFound."""
        with self._database.read() as session:
            row = session.scalar(select(AliasRow).where(*_key(backend, name)))
            if row is None:
                raise NotFound(f"There is no alias {name!r} of backend {backend}.")
            return _to_proto(row)

    def set(self, alias: project_pb2.Alias) -> project_pb2.Alias:
        """Make or replace an alias; raises NotFound for a project or model that the caller does not see."""
        with self._database.write() as session:
            if only_project() is not None:
                if alias.project_id:
                    find_project(session, alias.project_id)
                if alias.model_id:
                    find_model(session, alias.model_id)
            row = session.merge(
                AliasRow(
                    owner=new_owner() or "",
                    backend=alias.backend,
                    name=storable(alias.name),
                    project_id=alias.project_id,
                    model_id=alias.model_id,
                )
            )
            session.flush()
            return _to_proto(row)

    def remove(self, backend: str, name: str) -> None:
        """Delete an alias, if there is one."""
        with self._database.write() as session:
            session.execute(delete(AliasRow).where(*_key(backend, name)))


def _key(backend: str, name: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for an alias: each project has its own."""
    return AliasRow.owner == (new_owner() or ""), AliasRow.backend == backend, AliasRow.name == name


def _to_proto(row: AliasRow) -> project_pb2.Alias:
    return project_pb2.Alias(backend=row.backend, name=row.name, project_id=row.project_id, model_id=row.model_id)
