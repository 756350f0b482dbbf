"""Makes sure that a store belongs to this database before anything is collected there."""

from collections.abc import Iterator
from itertools import islice

from sqlalchemy import select

from cellsparse_common.errors import FailedPrecondition, NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.clock import new_id
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow, InstallationRow, ModelRow, RunRow

_LOOKED_AT = 200


def check_installation(store: ObjectStore, database: Database, *, claim: bool) -> None:
    """Compare the id of the installation in the store with that in the database.

    Args:
        store: The store.
        database: The database.
        claim: Write the id where there is none yet.

    Raises:
        FailedPrecondition: The store is another installation's, so that all in it would seem to be left over.
        StorageError: The store is away.
    """
    with database.read() as session:
        ours = session.scalar(select(InstallationRow.id))
    try:
        theirs = store.get(keys.installation()).decode(errors="replace")
    except NotFound:
        _refuse_strange(store, database)
        if claim:
            store.put(keys.installation(), (ours or _keep_new(database)).encode())
        return
    if theirs != ours:
        raise FailedPrecondition(
            f"The store belongs to installation {theirs!r}, and this database to {ours or 'none'!r}: nothing is "
            f"collected. If the other one is gone for good, remove the object {keys.installation()} from the store."
        )


def _keep_new(database: Database) -> str:
    made = new_id("installation")
    with database.write() as session:
        session.add(InstallationRow(id=made))
    return made


def _refuse_strange(store: ObjectStore, database: Database) -> None:
    """Refuse a store that holds datasets or runs, none of which the database knows."""
    found = set(islice(_ids(store, keys.DATASETS), _LOOKED_AT)) | set(islice(_ids(store, keys.RUNS), _LOOKED_AT))
    if not found:
        return
    with database.read() as session:
        for table in (DatasetRow, RunRow, ModelRow):
            if session.scalar(select(table.id).where(table.id.in_(found)).limit(1)) is not None:
                return
    raise FailedPrecondition(
        f"The store holds datasets or runs ({min(found)} for one), and this database knows none of them: it seems to "
        "be another installation's store, and nothing is collected."
    )


def _ids(store: ObjectStore, prefix: str) -> Iterator[str]:
    last = ""
    for key in store.list(prefix):
        found = key.removeprefix(prefix).partition("/")[0]
        if found != last:
            last = found
            yield found
