"""Which releases work with a layout that is newer than theirs.

A migration that says `only_adds = True` adds tables, columns with a default and indexes, and nothing else: an earlier
release works with its layout as with its own. The database says down to which layout that holds, in a row that the
earlier release reads. So it runs again as soon as it is started, and no command brings the database back.

Such a migration adds no table that refers to objects in the store: the earlier release would collect them.
"""

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, inspect, select

from cellsparse_orchestrator.db.tables import ReaderRow

NAME = "orchestrator"


def oldest_reader(connection: Connection) -> str:
    """Return the earliest layout whose release works with this database; empty: only that of its own layout."""
    if not inspect(connection).has_table(ReaderRow.__tablename__):
        return ""
    return connection.scalar(select(ReaderRow.oldest).where(ReaderRow.name == NAME)) or ""


def write_oldest(connection: Connection, scripts: ScriptDirectory, layout: str) -> None:
    """Note down which releases work with a layout that has just been made."""
    if not inspect(connection).has_table(ReaderRow.__tablename__):
        return
    script = scripts.get_revision(layout)
    while script is not None and getattr(script.module, "only_adds", False):
        script = scripts.get_revision(str(script.down_revision))
    connection.execute(delete(ReaderRow).where(ReaderRow.name == NAME))
    connection.execute(insert(ReaderRow).values(name=NAME, oldest=script.revision if script else layout))
