"""The table of aliases: words that clients use for a model and for the images that trained it."""

from sqlalchemy import delete, select

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AliasRow, storable
from cellsparse_proto.v1 import project_pb2


class Aliases:
    """The table of aliases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, backend: str, name: str) -> project_pb2.Alias:
        """Return an alias; raises NotFound."""
        with self._database.read() as session:
            row = session.scalar(select(AliasRow).where(AliasRow.backend == backend, AliasRow.name == name))
            if row is None:
                raise NotFound(f"There is no alias {name!r} of backend {backend}.")
            return _to_proto(row)

    def set(self, alias: project_pb2.Alias) -> project_pb2.Alias:
        """Make or replace an alias."""
        with self._database.write() as session:
            row = session.merge(
                AliasRow(
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
            session.execute(delete(AliasRow).where(AliasRow.backend == backend, AliasRow.name == name))


def _to_proto(row: AliasRow) -> project_pb2.Alias:
    return project_pb2.Alias(backend=row.backend, name=row.name, project_id=row.project_id, model_id=row.model_id)
